import { createReadStream } from "node:fs";

const chunkBytes = 256 << 10;

/** The bytes of a file, or of a part of it. */
export async function* fileChunks(
  path: string,
  part?: { readonly offset: number; readonly size: number },
): AsyncGenerator<Buffer, void> {
  if (part?.size === 0) return;
  const range = part === undefined ? {} : { start: part.offset, end: part.offset + part.size - 1 };
  yield* createReadStream(path, { ...range, highWaterMark: chunkBytes }) as AsyncIterable<Buffer>;
}
