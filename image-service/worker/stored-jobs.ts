import { existsSync } from "node:fs";

import { Code, CriError } from "../../cri-api/index.ts";
import { createDigestHash, finishDigest } from "../digest.ts";
import { LayerError } from "../layer/layer-error.ts";
import { reassembleLayer } from "../layer/reassemble.ts";
import { skeletonPath } from "../layer/skeleton.ts";
import { verifyLayer } from "../layer/verify.ts";
import type { ReassembleJob, Verdict, VerifyJob } from "./protocol.ts";
import type { JobEvents } from "./registry-jobs.ts";

const pieceBytes = 256 << 10;

/** Joins headers and small files to pieces that are worth a message. */
async function* pieces(chunks: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  let piece = new Uint8Array(pieceBytes);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let offset = 0; offset < chunk.length; ) {
      const part = chunk.subarray(offset, offset + pieceBytes - filled);
      piece.set(part, filled);
      filled += part.length;
      offset += part.length;
      if (filled < pieceBytes) continue;
      yield piece;
      piece = new Uint8Array(pieceBytes);
      filled = 0;
    }
  }
  if (filled > 0) yield piece.slice(0, filled);
}

/** Unpacked by an earlier version, an artifact's, or an archive whose members took each other's place. */
const noSkeleton = "it was unpacked without what its archive needs";

export async function runReassemble(
  { what, directory, diffId, limits }: ReassembleJob,
  { onPiece }: Pick<JobEvents, "onPiece">,
  signal: AbortSignal,
): Promise<undefined> {
  if (!existsSync(skeletonPath(directory)))
    throw new CriError(Code.FailedPrecondition, `${what}: ${noSkeleton}; remove the image and pull it again`);
  const hash = createDigestHash(diffId);
  try {
    for await (const piece of pieces(reassembleLayer({ directory, limits }))) {
      signal.throwIfAborted();
      hash.update(piece);
      await onPiece(piece);
    }
    const actual = finishDigest(diffId, hash);
    if (actual !== diffId) throw new LayerError(`its content has the digest ${actual}`);
  } catch (thrown) {
    if (!(thrown instanceof LayerError)) throw thrown;
    throw new CriError(Code.DataLoss, `${what}: it is damaged: ${thrown.message}`, { cause: thrown });
  }
}

export async function runVerify(job: VerifyJob, signal: AbortSignal): Promise<Verdict> {
  if (!existsSync(skeletonPath(job.directory))) return { outcome: "unchecked", detail: noSkeleton };
  const detail = await verifyLayer({ ...job, onProgress: () => signal.throwIfAborted() });
  return detail === undefined ? { outcome: "whole", detail: "" } : { outcome: "damaged", detail };
}
