import { existsSync } from "node:fs";
import { join } from "node:path";

import { Code, CriError } from "../../cri-api/index.ts";
import { checkedBytes } from "../layer/checked-bytes.ts";
import { describeName } from "../layer/entry-path.ts";
import { fileChunks } from "../layer/file-chunks.ts";
import { LayerError } from "../layer/layer-error.ts";
import { reassembleLayer } from "../layer/reassemble.ts";
import { layerRootName, skeletonPath } from "../layer/skeleton.ts";
import { verifyLayer } from "../layer/verify.ts";
import type { ArtifactFile } from "../registry/manifest.ts";
import type { ReassembleJob, StoredLayer, Verdict, VerifyJob } from "./protocol.ts";
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

/** Unpacked by an earlier version, or an archive that no skeleton is enough for. */
const noSkeleton = "it was unpacked without what its archive needs";

/** The bytes of an artifact's file, held against its digest. */
function fileBytes(directory: string, { path, digest }: ArtifactFile): AsyncGenerator<Buffer, void> {
  const whole = join(directory, layerRootName, path);
  if (!existsSync(whole)) throw new LayerError(`file ${describeName(path)} is missing`);
  return checkedBytes(fileChunks(whole), digest, `file ${describeName(path)}`);
}

function archiveBytes({ directory, diffId, limits }: StoredLayer): AsyncGenerator<Buffer, void> {
  return checkedBytes(reassembleLayer({ directory, limits }), diffId, "its content");
}

export async function runReassemble(
  job: ReassembleJob,
  { onPiece }: Pick<JobEvents, "onPiece">,
  signal: AbortSignal,
): Promise<undefined> {
  const { what, directory, file } = job;
  if (file === undefined && !existsSync(skeletonPath(directory)))
    throw new CriError(Code.FailedPrecondition, `${what}: ${noSkeleton}; remove the image and pull it again`);
  try {
    for await (const piece of pieces(file === undefined ? archiveBytes(job) : fileBytes(directory, file))) {
      signal.throwIfAborted();
      await onPiece(piece);
    }
  } catch (thrown) {
    if (!(thrown instanceof LayerError)) throw thrown;
    throw new CriError(Code.DataLoss, `${what}: it is damaged: ${thrown.message}`, { cause: thrown });
  }
}

async function verifyFiles(
  directory: string,
  files: readonly ArtifactFile[],
  onProgress: () => void,
): Promise<string | undefined> {
  try {
    for (const file of files) for await (const _ of fileBytes(directory, file)) onProgress();
    return undefined;
  } catch (thrown) {
    if (thrown instanceof LayerError) return thrown.message;
    throw thrown;
  }
}

export async function runVerify(job: VerifyJob, signal: AbortSignal): Promise<Verdict> {
  const { directory, files } = job;
  const onProgress = (): void => signal.throwIfAborted();
  if (files !== undefined) return verdictOf(await verifyFiles(directory, files, onProgress));
  if (!existsSync(skeletonPath(job.directory))) return { outcome: "unchecked", detail: noSkeleton };
  return verdictOf(await verifyLayer({ ...job, onProgress }));
}

function verdictOf(detail: string | undefined): Verdict {
  return detail === undefined ? { outcome: "whole", detail: "" } : { outcome: "damaged", detail };
}
