import { createDigestHash, type Digest, finishDigest } from "../digest.ts";
import { LayerError } from "./layer-error.ts";

/**
 * Passes bytes on, and holds them against their digest once there are no more.
 *
 * @throws {LayerError} at the end, where they have another one; `what` begins its text.
 */
export async function* checkedBytes(
  chunks: AsyncIterable<Buffer>,
  digest: Digest,
  what: string,
): AsyncGenerator<Buffer, void> {
  const hash = createDigestHash(digest);
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
  const actual = finishDigest(digest, hash);
  if (actual !== digest) throw new LayerError(`${what} has the digest ${actual}`);
}
