import type { Hash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { createDigestHash, finishDigest } from "../digest.ts";
import { createBottleneck, type RangedBlobs, readRanges, takesRanges } from "./blob-ranges.ts";
import { RegistryFailure } from "./failure.ts";
import { headerOf, type HttpResponse, transportFailure } from "./http.ts";
import type { RetryPolicy } from "./limits.ts";
import type { Descriptor } from "./manifest.ts";
import { retryDelayMs } from "./retry.ts";
import type { RegistrySession } from "./session.ts";

export interface BlobDownload {
  readonly session: Pick<RegistrySession, "get">;
  readonly descriptor: Descriptor;
  readonly policy: RetryPolicy;
  readonly ranged: RangedBlobs;
  readonly signal: AbortSignal;
}

/** What has arrived so far; it outlives one connection and even one host, since the hash goes on. */
export interface BlobProgress {
  receivedBytes: number;
  readonly hash: Hash;
  /** Byte ranges were tried and failed: the rest comes over one connection. */
  isSerial: boolean;
}

export function startBlob(descriptor: Descriptor): BlobProgress {
  return { receivedBytes: 0, hash: createDigestHash(descriptor.digest), isSerial: false };
}

function receive({ descriptor }: BlobDownload, progress: BlobProgress, chunk: Buffer): Buffer {
  progress.receivedBytes += chunk.length;
  if (progress.receivedBytes > descriptor.size)
    throw new RegistryFailure("invalid", `blob ${descriptor.digest} is longer than its ${descriptor.size} bytes`);
  progress.hash.update(chunk);
  return chunk;
}

/** Bytes to drop from an answer so that it goes on where the last one broke off. */
function bytesToSkip(response: HttpResponse, wantedOffset: number): number {
  if (response.status === 200) return wantedOffset; // the registry ignored Range
  const range = /^bytes (\d+)-\d+\/(?:\d+|\*)$/.exec(headerOf(response, "content-range") ?? "");
  if (range === null || Number(range[1]) !== wantedOffset)
    throw new RegistryFailure("invalid", "the registry answered with another byte range than asked for");
  return 0;
}

/** Reads over one connection, to the end or until several are known to be faster. */
async function* readOnce(download: BlobDownload, progress: BlobProgress): AsyncGenerator<Buffer, void> {
  const { session, descriptor, signal } = download;
  const offset = progress.receivedBytes;
  const range: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` };
  const response = await session.get(`blobs/${descriptor.digest}`, { accept: "*/*", ...range }, signal);
  try {
    let skip = bytesToSkip(response, offset);
    const isBottleneck = takesRanges(response) && !progress.isSerial ? createBottleneck(download, offset) : () => false;
    for await (const received of response.body as AsyncIterable<Buffer>) {
      const chunk = skip === 0 ? received : received.subarray(Math.min(skip, received.length));
      skip -= received.length - chunk.length;
      if (chunk.length === 0) continue;
      yield receive(download, progress, chunk);
      if (isBottleneck(progress.receivedBytes)) return;
    }
  } catch (thrown) {
    signal.throwIfAborted();
    throw thrown instanceof RegistryFailure ? thrown : transportFailure(thrown);
  } finally {
    response.body.on("error", () => undefined).destroy();
  }
  if (progress.receivedBytes < descriptor.size)
    throw new RegistryFailure("broken", `blob ended after ${progress.receivedBytes} of ${descriptor.size} bytes`);
}

/** One connection, and then several if that one is what holds it up; a failure of theirs ends that for good. */
async function* readOn(download: BlobDownload, progress: BlobProgress): AsyncGenerator<Buffer, void> {
  yield* readOnce(download, progress);
  if (progress.receivedBytes === download.descriptor.size) return;
  progress.isSerial = true;
  try {
    for await (const chunk of readRanges(download, progress.receivedBytes)) yield receive(download, progress, chunk);
  } catch (thrown) {
    if (!(thrown instanceof RegistryFailure)) throw thrown;
    throw new RegistryFailure("broken", thrown.message, { cause: thrown }); // one connection may still do
  }
}

/**
 * The bytes of a blob, in order and each once. A broken transfer goes on where it broke, by Range if the registry
 * honours it; one that a slow connection holds up comes over several. `policy.attempts` tries without a single new byte
 * end it. Whoever reads to the end knows that the bytes have the descriptor's digest.
 */
export async function* downloadBlob(download: BlobDownload, progress: BlobProgress): AsyncGenerator<Buffer, void> {
  const { descriptor, policy, signal } = download;
  for (let idle = 1; ; idle += 1) {
    const before = progress.receivedBytes;
    try {
      yield* readOn(download, progress);
      break;
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure) || !thrown.isRetriable) throw thrown;
      if (progress.receivedBytes === descriptor.size) break; // it broke behind the last byte: no range is left to ask for
      if (progress.receivedBytes > before) idle = 1;
      if (idle >= policy.attempts) throw thrown;
      await sleep(retryDelayMs(policy, idle, thrown), undefined, { signal });
    }
  }
  const actual = finishDigest(descriptor.digest, progress.hash);
  if (actual !== descriptor.digest)
    throw new RegistryFailure("invalid", `blob ${descriptor.digest} has the digest ${actual}`);
}

/** A blob known to be small, whole. */
export async function downloadSmallBlob(download: Omit<BlobDownload, "ranged">): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const whole = { ...download, ranged: { count: 0 } };
  for await (const chunk of downloadBlob(whole, startBlob(download.descriptor))) chunks.push(chunk);
  return Buffer.concat(chunks);
}
