import {
  canonicalPlace,
  formatReference,
  type ImageReference,
  type NamedReference,
  parseNamedReference,
  repositoryOf,
} from "../reference.ts";
import type { SignedIdentity } from "./policy.ts";

function spell(named: NamedReference): string {
  const { domain, path, tag, digest } = named;
  return `${domain}/${path}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** The full name with `prefix` replaced; a prefix ends where a component does. */
function remap(reference: ImageReference, prefix: string, signedPrefix: string): ImageReference {
  const repository = repositoryOf(reference);
  const place = canonicalPlace(prefix);
  if (repository !== place && !repository.startsWith(`${place}/`)) return reference;
  const renamed = `${signedPrefix}${repository.slice(place.length)}`;
  const { domain, path } = parseNamedReference(renamed);
  if (`${domain}/${path}` !== canonicalPlace(renamed))
    throw new Error(`${JSON.stringify(signedPrefix)} is not the start of a full name`);
  return { ...reference, domain, path };
}

function matchesRepoDigestOrExact(reference: ImageReference, signed: NamedReference): boolean {
  return reference.digest === undefined
    ? formatReference(reference) === spell(signed)
    : repositoryOf(reference) === `${signed.domain}/${signed.path}`;
}

/**
 * True if a signature that says `claimed` of an image may be used for the image that is asked for as `reference`.
 *
 * @throws {Error} if one of the names is none.
 */
export function matchesIdentity(rule: SignedIdentity, reference: ImageReference, claimed: string): boolean {
  const signed = parseNamedReference(claimed);
  const signedRepository = `${signed.domain}/${signed.path}`;
  switch (rule.type) {
    case "matchExact":
      return formatReference(reference) === spell(signed);
    case "matchRepoDigestOrExact":
      return matchesRepoDigestOrExact(reference, signed);
    case "matchRepository":
      return repositoryOf(reference) === signedRepository;
    case "exactReference":
      return spell(parseNamedReference(rule.dockerReference)) === spell(signed);
    case "exactRepository": {
      const { domain, path } = parseNamedReference(rule.dockerRepository);
      return `${domain}/${path}` === signedRepository;
    }
    case "remapIdentity":
      return matchesRepoDigestOrExact(remap(reference, rule.prefix, rule.signedPrefix), signed);
  }
}
