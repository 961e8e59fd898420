import { Code, CriError } from "../../cri-api/index.ts";
import { type ImageReference, isShortName, parseImageReference, quote, splitTag } from "../reference.ts";
import type { RegistriesConf } from "./registries-conf.ts";

function nameOf(text: string): string {
  return splitTag(text.split("@", 1)[0] ?? "").name;
}

/**
 * What a user's name of an image may stand for, in the order in which it is to be looked for. A full name is itself; a
 * short one its alias, or of each search registry. Where no file names any, it is of Docker Hub. Empty for a short name
 * that the mode calls ambiguous, since nobody can be asked here, or that no registry is searched for.
 *
 * @throws {CriError} `InvalidArgument` for a malformed name.
 */
export function referencesFor(conf: RegistriesConf, text: string): readonly ImageReference[] {
  const asDockerHub = parseImageReference(text);
  if (!isShortName(text)) return [asDockerHub];
  const name = nameOf(text);
  const alias = conf.aliases.get(name);
  if (alias !== undefined) return [parseImageReference(alias + text.slice(name.length))];
  if (conf.searchRegistries === undefined) return [asDockerHub];
  if (conf.searchRegistries.length > 1 && conf.shortNameMode === "enforcing") return [];
  return conf.searchRegistries.map((registry) => parseImageReference(`${registry}/${text}`));
}

/**
 * As {@link referencesFor}, for a pull, which needs one at least.
 *
 * @throws {CriError} `InvalidArgument` for a malformed name, and for a short one that stands for nothing.
 */
export function candidatesOf(conf: RegistriesConf, text: string): readonly ImageReference[] {
  const references = referencesFor(conf, text);
  if (references.length > 0) return references;
  const count = conf.searchRegistries?.length ?? 0;
  const why =
    count === 0
      ? `short name ${quote(text)} is no alias, and registries.conf has no unqualified-search-registries`
      : `short name mode is enforcing, but image name ${quote(text)} returns ambiguous list of ${count} registries`;
  throw new CriError(Code.InvalidArgument, why);
}
