import { performance } from "node:perf_hooks";

import type { BlobDownload } from "./blob.ts";
import { RegistryFailure } from "./failure.ts";
import { headerOf, type HttpResponse, transportFailure } from "./http.ts";

/** Connections of one blob; each holds one segment in memory. */
const connections = 4;
const segmentBytes = 2 << 20;
/** A blob with less left is through before more connections are open. */
const worthwhileBytes = 4 * segmentBytes;
/** A thread that is busy longer than this share of the time unpacks as fast as it can: more bytes would only wait. */
const busyShare = 0.5;

/**
 * Says when one connection is what a download waits for: after `policy.rangesAfterMs` of it, if this thread was idle
 * for most of them. On a fast link it never is, and ranges would only cost.
 */
export function createBottleneck({ policy, descriptor }: BlobDownload): (receivedBytes: number) => boolean {
  let since = { atMs: performance.now(), loop: performance.eventLoopUtilization() };
  return (receivedBytes) => {
    const nowMs = performance.now();
    if (nowMs - since.atMs < policy.rangesAfterMs) return false;
    const { utilization } = performance.eventLoopUtilization(since.loop);
    since = { atMs: nowMs, loop: performance.eventLoopUtilization() };
    return utilization < busyShare && descriptor.size - receivedBytes >= worthwhileBytes;
  };
}

/** True if the answer promises that parts of the blob can be asked for. */
export function takesRanges(response: HttpResponse): boolean {
  return response.status === 206 || headerOf(response, "accept-ranges") === "bytes";
}

/** Asks for bytes `start` to `end`, the last one not included. */
async function fetchSegment(download: BlobDownload, start: number, end: number): Promise<Buffer> {
  const { session, descriptor, signal } = download;
  const range = `bytes=${start}-${end - 1}`;
  const response = await session.get(`blobs/${descriptor.digest}`, { accept: "*/*", range }, signal);
  try {
    const given = headerOf(response, "content-range") ?? "";
    if (response.status !== 206 || !given.startsWith(`bytes ${start}-${end - 1}/`))
      throw new RegistryFailure("broken", "the registry does not keep to the byte ranges asked for");
    const segment = Buffer.allocUnsafeSlow(end - start);
    let filled = 0;
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      if (filled + chunk.length > segment.length) throw new RegistryFailure("broken", "a byte range is too long");
      filled += chunk.copy(segment, filled);
    }
    if (filled < segment.length) throw new RegistryFailure("broken", "a byte range ended too early");
    return segment;
  } catch (thrown) {
    signal.throwIfAborted();
    throw thrown instanceof RegistryFailure ? thrown : transportFailure(thrown);
  } finally {
    response.body.on("error", () => undefined).destroy();
  }
}

/**
 * The bytes of a blob from `offset` on, in order, over several connections at once; at most a segment for each is held.
 * The first failure ends all.
 */
export async function* readRanges(download: BlobDownload, offset: number): AsyncGenerator<Buffer, void> {
  const { size } = download.descriptor;
  const stop = new AbortController();
  const parallel = { ...download, signal: AbortSignal.any([download.signal, stop.signal]) };
  const window: Promise<Buffer>[] = [];
  try {
    for (let next = offset; ; ) {
      while (window.length < connections && next < size) {
        const end = Math.min(next + segmentBytes, size);
        const segment = fetchSegment(parallel, next, end);
        segment.catch(() => undefined); // whoever reads as far hears of it
        window.push(segment);
        next = end;
      }
      const first = window.shift();
      if (first === undefined) return;
      yield await first;
    }
  } finally {
    stop.abort();
  }
}
