import type { Digest } from "./digest.ts";
import type { LayerDescriptor } from "./registry/resolve.ts";
import type { LayerProgress } from "./worker/protocol.ts";

/** How far a pull has come. */
export interface PullProgress {
  /** Full name of what is being pulled. */
  readonly image: string;
  readonly phase: "resolving" | "fetching";
  /** The host that was asked last. */
  readonly host: string;
  readonly elapsedMs: number;
  readonly layers: number;
  /** Layers that are in the store, those that were there before included. */
  readonly layersDone: number;
  /** Compressed bytes of the layers that this pull fetches, and how many of them have come. */
  readonly totalBytes: number;
  readonly downloadedBytes: number;
  readonly unpackedBytes: number;
  /** Downloaded of late: over the last five to ten seconds, or since the start. */
  readonly bytesPerSecond: number;
}

/** What pulls have come to since the daemon started. */
export interface PullTotals {
  readonly pulled: number;
  /** Or given up by all who wanted them. */
  readonly failed: number;
  readonly downloadedBytes: number;
}

/** Follows one pull. */
export interface PullTracker {
  /** A host is asked. */
  readonly trying: (host: string) => void;
  /** The image is known. */
  resolved(host: string, layers: readonly LayerDescriptor[]): void;
  /** A layer is fetched by this pull, and not found in the store or shared with another pull. */
  fetching(layer: LayerDescriptor): void;
  advance(progress: LayerProgress): void;
  layerDone(): void;
  snapshot(): PullProgress;
}

/** How long a mark of the past stands, against which the speed is measured. */
const speedMarkMs = 5000;

/** Tells a speed from totals that only grow. */
function createSpeedometer(): (totalBytes: number, atMs: number) => number {
  const marks = { before: { atMs: 0, bytes: 0 }, last: { atMs: 0, bytes: 0 } };
  return (bytes, atMs) => {
    if (atMs - marks.last.atMs >= speedMarkMs) {
      marks.before = marks.last;
      marks.last = { atMs, bytes };
    }
    const sinceMs = atMs - marks.before.atMs;
    return sinceMs <= 0 ? 0 : Math.round(((bytes - marks.before.bytes) * 1000) / sinceMs);
  };
}

export function trackPull(image: string, host: string): PullTracker {
  const startedAtMs = performance.now(); // the system's clock may be set meanwhile
  const speedOf = createSpeedometer();
  const byLayer = new Map<Digest, LayerProgress>();
  const state = { phase: "resolving" as PullProgress["phase"], host, layers: 0, layersDone: 0, totalBytes: 0 };
  return {
    trying(asked) {
      state.host = asked;
    },
    resolved(answered, layers) {
      state.phase = "fetching";
      state.host = answered;
      state.layers = new Set(layers.map(({ diffId }) => diffId)).size;
    },
    fetching(layer) {
      state.totalBytes += layer.size;
    },
    advance(progress) {
      byLayer.set(progress.diffId, progress);
    },
    layerDone() {
      state.layersDone += 1;
    },
    snapshot() {
      let [downloadedBytes, unpackedBytes] = [0, 0];
      for (const layer of byLayer.values()) {
        downloadedBytes += layer.downloadedBytes;
        unpackedBytes += layer.unpackedBytes;
      }
      const elapsedMs = Math.round(performance.now() - startedAtMs);
      const bytesPerSecond = speedOf(downloadedBytes, elapsedMs);
      return { image, elapsedMs, ...state, downloadedBytes, unpackedBytes, bytesPerSecond };
    },
  };
}
