import { formatReference, parseImageReference, repositoryOf } from "../reference.ts";
import { ArchiveError } from "./archive-error.ts";
import type { ArchivedImage } from "./contents.ts";

/** A name that an image is to have. */
export interface GivenName {
  readonly repository: string;
  readonly tag: string | undefined;
}

export interface NamedImage extends ArchivedImage {
  readonly given: readonly GivenName[];
}

function toName({ isForeign, digests }: ArchivedImage, text: string): GivenName {
  const reference = parseImageReference(text);
  if (reference.digest !== undefined && reference.digest !== digests?.target)
    throw new ArchiveError(`it has another image under the name "${formatReference(reference)}"`);
  return { repository: repositoryOf(reference), tag: isForeign ? undefined : reference.tag };
}

/** The archive's own names of an image; a tag alone belongs to the repository that the caller named. */
function namesOf(image: ArchivedImage, given: string, isWhole: boolean): readonly GivenName[] {
  const { names, bareTag } = image;
  if (given !== "") return [toName(image, isWhole || bareTag === undefined ? given : `${given}:${bareTag}`)];
  if (names.length > 0) return names.map((name) => toName(image, name));
  const has = bareTag === undefined ? "no name" : `the tag "${bareTag}" and no name`;
  throw new ArchiveError(`image ${image.id} has ${has}; --name gives one`);
}

/**
 * The names of the archive's images.
 *
 * @param given A name for the only image, whatever the archive calls it; without a tag, the repository for tags.
 * @throws {ArchiveError} where an image has no name, or two images have the same.
 */
export function nameImages(images: readonly ArchivedImage[], given: string): readonly NamedImage[] {
  const isWhole = /[:@][^/]*$/.test(given);
  if (isWhole && images.filter(({ isForeign }) => !isForeign).length > 1)
    throw new ArchiveError(`it has ${images.length} images, and one name was given`);
  const claims = new Map<string, string>();
  const named = new Map<string, NamedImage>();
  for (const image of images) {
    const names = namesOf(image, given, isWhole);
    for (const { repository, tag } of names) {
      const name = `${repository}:${tag}`;
      if (tag !== undefined && (claims.get(name) ?? image.id) !== image.id)
        throw new ArchiveError(`two of its images are called "${name}"`);
      claims.set(name, image.id);
    }
    // An image of several tags stands in index.json once for each.
    named.set(image.id, { ...image, given: [...(named.get(image.id)?.given ?? []), ...names] });
  }
  return [...named.values()];
}
