import { performance } from "node:perf_hooks";

import type { BlobDownload } from "./blob.ts";
import { RegistryFailure } from "./failure.ts";
import { headerOf, type HttpResponse, transportFailure } from "./http.ts";

/** Those of a thread's blobs that come in byte ranges right now: they share its connections. */
export interface RangedBlobs {
  count: number;
}

/** Of all of a thread's blobs that come in byte ranges; each holds one segment in memory. */
const maxConnections = 8;
const firstConnections = 2;
const segmentBytes = 2 << 20;
/** A blob with less left is through before more connections are open. */
const worthwhileBytes = 4 * segmentBytes;
/** A thread that is busy longer than this share of the time unpacks as fast as it can: more bytes would only wait. */
const busyShare = 0.5;
/** More connections that bring less than this much more are not what was missing. */
const worthwhileGain = 1.2;

/** How a while of a download went. */
interface Pace {
  readonly bytesPerMs: number;
  /** The thread was idle for most of it: it waits for bytes. */
  readonly isStarved: boolean;
}

/** Tells of each `policy.rangesAfterMs` of a download when it is over. */
function createPacemaker({ policy }: BlobDownload, offset: number): (receivedBytes: number) => Pace | undefined {
  const take = (bytes: number) => ({ bytes, atMs: performance.now(), loop: performance.eventLoopUtilization() });
  let since = take(offset);
  return (receivedBytes) => {
    const elapsedMs = performance.now() - since.atMs;
    if (elapsedMs < policy.rangesAfterMs) return undefined;
    const { utilization } = performance.eventLoopUtilization(since.loop);
    const bytesPerMs = (receivedBytes - since.bytes) / elapsedMs;
    since = take(receivedBytes);
    return { bytesPerMs, isStarved: utilization < busyShare };
  };
}

/** Says when one connection is what a download waits for. On a fast link it never is, and ranges would only cost. */
export function createBottleneck(download: BlobDownload, offset: number): (receivedBytes: number) => boolean {
  const paceAt = createPacemaker(download, offset);
  return (receivedBytes) =>
    paceAt(receivedBytes)?.isStarved === true && download.descriptor.size - receivedBytes >= worthwhileBytes;
}

/** How many connections to use: twice as many while the thread waits for bytes, if the last ones brought more of them. */
function createWidth(download: BlobDownload, offset: number): (receivedBytes: number) => number {
  const paceAt = createPacemaker(download, offset);
  let wanted = firstConnections;
  let slower = 0;
  return (receivedBytes) => {
    const pace = paceAt(receivedBytes);
    if (pace?.isStarved === true && pace.bytesPerMs > slower * worthwhileGain) {
      slower = pace.bytesPerMs;
      wanted = Math.min(wanted * 2, maxConnections);
    }
    return Math.min(wanted, Math.max(1, Math.floor(maxConnections / download.ranged.count)));
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
 * The bytes of a blob from `offset` on, in order, over several connections at once; at most a segment for each is held,
 * and the one that is being read. The first failure ends all.
 */
export async function* readRanges(download: BlobDownload, offset: number): AsyncGenerator<Buffer, void> {
  const { ranged, descriptor } = download;
  const stop = new AbortController();
  const parallel = { ...download, signal: AbortSignal.any([download.signal, stop.signal]) };
  const window: Promise<Buffer>[] = [];
  const widthAt = createWidth(download, offset);
  let [next, given] = [offset, offset];
  function refill(): void {
    for (const width = widthAt(given); window.length < width && next < descriptor.size; ) {
      const end = Math.min(next + segmentBytes, descriptor.size);
      const segment = fetchSegment(parallel, next, end);
      segment.catch(() => undefined); // whoever reads as far hears of it
      window.push(segment);
      next = end;
    }
  }
  ranged.count += 1;
  try {
    refill();
    for (let first = await window.shift(); first !== undefined; first = await window.shift()) {
      given += first.length;
      refill(); // no connection rests while the reader works
      yield first;
    }
  } finally {
    ranged.count -= 1;
    stop.abort();
  }
}
