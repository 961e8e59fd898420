import { once } from "node:events";
import type { Transform } from "node:stream";
import { createZstdDecompress } from "node:zlib";

import { createGzipInflater, SyscallError } from "../../native/index.ts";
import { LayerError } from "./layer-error.ts";
import { createZstdFrames } from "./zstd-frames.ts";

export type Compression = "gzip" | "zstd" | "none";

/** node:zlib's default of 16 KiB spends its time between calls. */
const chunkSize = 256 << 10;
const sniffedBytes = 6;

/** What the first bytes say; media types are often wrong about it, so no peer believes them either. */
export function detectCompression(start: Buffer): Compression {
  const hex = start.toString("hex", 0, sniffedBytes);
  if (hex.startsWith("1f8b")) return "gzip";
  if (hex.startsWith("28b52ffd") || /^5[0-9a-f]2a4d18/.test(hex)) return "zstd";
  if (hex.startsWith("fd377a585a00") || hex.startsWith("425a68"))
    throw new LayerError("the layer is compressed with xz or bzip2; only gzip and zstd are layer formats");
  return "none";
}

/** Puts the first bytes back before the rest, in one piece large enough to tell the format. */
async function peek(source: AsyncIterator<Buffer, void>): Promise<{ start: Buffer; isOver: boolean }> {
  let start: Buffer = Buffer.alloc(0);
  while (start.length < sniffedBytes) {
    const next = await source.next();
    if (next.done === true) return { start, isOver: true };
    start = start.length === 0 ? next.value : Buffer.concat([start, next.value]);
  }
  return { start, isOver: false };
}

/** The whole input again: what was read ahead, then the rest. */
async function* rejoin(start: Buffer, source: AsyncIterator<Buffer, void>): AsyncGenerator<Buffer, void> {
  if (start.length > 0) yield start;
  for (;;) {
    const next = await source.next();
    if (next.done === true) return;
    yield next.value;
  }
}

async function feed(source: AsyncIterable<Buffer>, decoder: Transform, isAbandoned: AbortSignal): Promise<void> {
  const frames = createZstdFrames();
  for await (const chunk of source)
    for (const piece of frames.split(chunk))
      if (!decoder.write(piece)) await once(decoder, "drain", { signal: isAbandoned });
  decoder.end();
}

function decodeFailure(thrown: unknown): unknown {
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  const isInflate = thrown instanceof SyscallError && thrown.syscall === "inflate";
  return isInflate || /^(?:Z_|ZSTD_)/.test(code)
    ? new LayerError(`the layer cannot be decompressed (${code})`, { cause: thrown })
    : thrown;
}

async function* unzstd(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const decoder = createZstdDecompress({ chunkSize });
  const abandoned = new AbortController();
  // A failing source ends the reader below with the source's own error.
  feed(source, decoder, abandoned.signal).catch((thrown: unknown) => {
    decoder.destroy(thrown instanceof Error ? thrown : new Error(String(thrown)));
  });
  try {
    yield* decoder as AsyncIterable<Buffer>;
  } finally {
    abandoned.abort();
    decoder.destroy();
  }
}

async function* gunzip(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  const inflater = createGzipInflater();
  const output = Buffer.allocUnsafeSlow(chunkSize);
  let mayEnd = true;
  for await (const chunk of source) {
    for (let input = chunk, isFull = false; input.length > 0 || isFull; ) {
      const step = inflater.step(input, output);
      input = input.subarray(step.taken);
      isFull = step.given === output.length; // then there may be more without further input
      mayEnd = step.mayEnd;
      if (step.given > 0) yield output.subarray(0, step.given);
    }
  }
  if (!mayEnd) throw new LayerError("the layer ends in the middle of its gzip stream");
}

const decoders = { gzip: gunzip, zstd: unzstd } as const satisfies Record<
  Exclude<Compression, "none">,
  (source: AsyncGenerator<Buffer, void>) => AsyncGenerator<Buffer, void>
>;

/**
 * The uncompressed bytes of a layer; a chunk is good until the next one is asked for. A reader that stops early must
 * also stop the source, which may be waiting for a network.
 */
export async function* decompress(source: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  const { start, isOver } = await peek(source);
  const whole = rejoin(start, source);
  const compression = isOver && start.length < sniffedBytes ? "none" : detectCompression(start);
  if (compression === "none") {
    yield* whole;
    return;
  }
  try {
    yield* decoders[compression](whole);
  } catch (thrown) {
    throw decodeFailure(thrown);
  }
}
