import * as v from "valibot";

import { type Digest, digestOf } from "../digest.ts";
import { describeName } from "../layer/entry-path.ts";
import type { Archive } from "./archive.ts";
import { ArchiveError } from "./archive-error.ts";
import { type ArchivedImage, checkLayers, checkPlatform, isRunnable, parseConfig, type Selection } from "./contents.ts";

const maxImages = 1024;
const schema = v.pipe(
  v.array(v.object({ Config: v.string(), RepoTags: v.nullish(v.array(v.string()), []), Layers: v.array(v.string()) })),
  v.maxLength(maxImages),
);
type Item = v.InferOutput<typeof schema>[number];

/** The digest that a config's name states: `<hex>.json`, or the path of a blob. */
function statedDigest(path: string): Digest | undefined {
  const hex = /^(?:blobs\/sha256\/)?([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
  return hex === undefined ? undefined : `sha256:${hex}`;
}

function imageOf(archive: Archive, item: Item, selection: Selection): ArchivedImage {
  const bytes = archive.read(item.Config, selection.limits.configBytes);
  const id = digestOf(bytes, undefined);
  if ((statedDigest(item.Config) ?? id) !== id)
    throw new ArchiveError(`image config ${describeName(item.Config)} has the digest ${id}`);
  const { json, document } = parseConfig(bytes);
  checkPlatform(selection, document.platform);
  checkLayers(document, item.Layers.length, selection.limits);
  const layers = item.Layers.flatMap((path, index) => {
    const [member, diffId] = [archive.find(path), document.diffIds[index]];
    if (member === undefined) throw new ArchiveError(`it lacks layer ${describeName(path)}`);
    return diffId === undefined ? [] : [{ diffId, member, blob: undefined }];
  });
  const { platform } = document;
  const isForeign = !isRunnable(selection, platform);
  return { type: "image", id, configJson: json, platform, digests: undefined, layers, names: item.RepoTags, isForeign };
}

/**
 * The images of what `docker save` writes.
 *
 * @throws {ArchiveError}
 * @see https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format
 */
export function readDockerArchive(archive: Archive, selection: Selection): readonly ArchivedImage[] {
  const json = archive.read("manifest.json", selection.limits.manifestBytes).toString("utf8");
  let parsed: v.SafeParseResult<typeof schema>;
  try {
    parsed = v.safeParse(schema, JSON.parse(json));
  } catch (thrown) {
    throw new ArchiveError("manifest.json is not JSON", { cause: thrown });
  }
  if (!parsed.success)
    throw new ArchiveError(`manifest.json is malformed at "${v.getDotPath(parsed.issues[0]) ?? ""}"`);
  return parsed.output.map((item) => imageOf(archive, item, selection));
}
