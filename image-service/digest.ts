import { createHash, type Hash } from "node:crypto";

/** A content digest that was parsed: safe as a file name, comparable as a string. */
export type Digest = `sha256:${string}` | `sha512:${string}`;

const digestPattern = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export function isDigest(text: string): text is Digest {
  return digestPattern.test(text);
}

/** Starts a hash of the algorithm that `digest` names. */
export function createDigestHash(digest: Digest): Hash {
  return createHash(digest.startsWith("sha512:") ? "sha512" : "sha256");
}

export function finishDigest(like: Digest, hash: Hash): Digest {
  return `${like.startsWith("sha512:") ? "sha512" : "sha256"}:${hash.digest("hex")}`;
}

/** The digest of `bytes`, by the algorithm of `like` (sha256 when there is nothing to compare with). */
export function digestOf(bytes: Uint8Array | string, like: Digest | undefined): Digest {
  const algorithm = like?.startsWith("sha512:") ? "sha512" : "sha256";
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

/** A name for files and folders: no colon, so it can stand in an overlay option. */
export function digestFileName(digest: Digest): string {
  return digest.replace(":", "-");
}

export function digestOfFileName(name: string): Digest | undefined {
  const digest = name.replace("-", ":");
  return isDigest(digest) ? digest : undefined;
}
