import { Code, CriError } from "../../cri-api/index.ts";
import { LayerError } from "../layer/layer-error.ts";
import { unpackArtifact, type UnpackedLayer, unpackLayer, type UnpackTarget } from "../layer/unpack.ts";
import { downloadBlob, startBlob } from "../registry/blob.ts";
import type { RangedBlobs } from "../registry/blob-ranges.ts";
import { type Attempt, failedAttempts, RegistryFailure } from "../registry/failure.ts";
import type { Authorities } from "../registry/authorities.ts";
import { createHttp, type Http } from "../registry/http.ts";
import { type BlobSource, foreignSources } from "../registry/foreign.ts";
import { type Descriptor, isForeign } from "../registry/manifest.ts";
import { resolveImage } from "../registry/resolve.ts";
import { createSession, type RegistrySession } from "../registry/session.ts";
import { createTokenCache, type Token } from "../registry/tokens.ts";
import { storageFailure } from "../storage-failure.ts";
import type { LayerJob, LayerProgress, LayerResult, RegistryAccess, ResolveJob, ResolveResult } from "./protocol.ts";

/** What a job may tell while it runs, and what the thread has for all its jobs. */
export interface JobEvents {
  authorities(): Promise<Authorities>;
  readonly ranged: RangedBlobs;
  /** A host is asked. */
  onHost(host: string): void;
  onProgress(progress: LayerProgress): void;
  onToken(key: string, token: Token): void;
  /** Resolves when there may be more. */
  onPiece(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

const progressIntervalMs = 500;

/** Stops a layer of which no byte has been downloaded or unpacked for too long. */
interface Watchdog extends Disposable {
  /** Bytes have come on. */
  pat(): void;
}

function watchProgress(job: LayerJob, stop: AbortController): Watchdog {
  const { progressTimeoutMs } = job.access.policy;
  const bark = (): void => {
    const text = `${job.what}: layer ${job.layer.digest}: no byte was downloaded or unpacked for ${progressTimeoutMs / 1000} s`;
    stop.abort(new CriError(Code.DeadlineExceeded, text));
  };
  const timer = setTimeout(bark, progressTimeoutMs);
  return { pat: () => timer.refresh(), [Symbol.dispose]: () => clearTimeout(timer) };
}

function throttle(events: JobEvents): (progress: LayerProgress) => void {
  let nextMs = 0;
  return (progress) => {
    const nowMs = performance.now();
    if (nowMs < nextMs) return;
    nextMs = nowMs + progressIntervalMs;
    events.onProgress(progress);
  };
}

/** Hosts that are nobody's endpoint: of those, nothing is known but what holds for all. */
const noEndpoint = {
  address: "",
  tls: { isVerified: true, authorities: [], clientCertificates: [] },
  connectTimeoutMs: undefined,
};

/** Opens the sessions of an access, in its order, and a way to every other host. */
export async function withSessions<T>(
  access: RegistryAccess,
  events: JobEvents,
  use: (sessions: readonly RegistrySession[], http: Http) => Promise<T>,
): Promise<T> {
  await using connections = new AsyncDisposableStack();
  const { network, policy, limits } = access;
  const authorities = await events.authorities();
  const tokens = createTokenCache(access.tokens, (key, token) => events.onToken(key, token));
  return await use(
    access.endpoints.map((endpoint) => {
      const http = connections.use(createHttp({ endpoint, network, policy, authorities }));
      return createSession({ endpoint, http, tokens, network, limits });
    }),
    connections.use(createHttp({ endpoint: noEndpoint, network, policy, authorities })),
  );
}

/** Asks one host after the other until one can answer. */
async function firstAnswer<T>(
  sessions: readonly RegistrySession[],
  what: string,
  events: Pick<JobEvents, "onHost">,
  ask: (session: RegistrySession) => Promise<T>,
): Promise<T> {
  const attempts: Attempt[] = [];
  for (const session of sessions) {
    events.onHost(session.endpoint.host);
    try {
      return await ask(session);
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure)) throw thrown;
      const { host, isMirror } = session.endpoint;
      attempts.push({ host, isMirror, failure: thrown });
    }
  }
  throw failedAttempts(what, attempts);
}

/** What a name stands for, by the first host that knows it. */
export async function runResolve(job: ResolveJob, events: JobEvents, signal: AbortSignal): Promise<ResolveResult> {
  const { limits, policy } = job.access;
  return await withSessions(job.access, events, (sessions) =>
    firstAnswer(sessions, job.what, events, async (session) => ({
      resolution: await resolveImage(session, { ...job.options, limits, policy }, signal),
      endpoint: session.endpoint,
    })),
  );
}

/** A layer as errors call it. */
function nameOf({ digest, mediaType }: Descriptor): string {
  return `layer ${digest}${isForeign(mediaType) ? " (a foreign one)" : ""}`;
}

interface LayerDownload {
  /** Asked in this order. */
  readonly sources: readonly BlobSource[];
  readonly job: LayerJob;
  readonly report: { host: string; receivedBytes: number };
  readonly watchdog: Watchdog;
  readonly events: Pick<JobEvents, "onHost" | "ranged">;
  readonly signal: AbortSignal;
}

/** The bytes of a blob, from whichever hosts give them; a second host goes on where the first one broke off. */
async function* downloadFromAny(
  { sources, job, report, watchdog, events, signal }: LayerDownload,
  descriptor: Descriptor,
): AsyncGenerator<Buffer, void> {
  const attempts: Attempt[] = [];
  const progress = startBlob(descriptor);
  const earlierBytes = report.receivedBytes;
  for (const source of sources) {
    const { host, isMirror } = source.endpoint;
    report.host = host;
    events.onHost(host);
    try {
      const { ranged } = events;
      const download = { session: source, descriptor, policy: job.access.policy, ranged, signal };
      for await (const chunk of downloadBlob(download, progress)) {
        report.receivedBytes = earlierBytes + progress.receivedBytes;
        watchdog.pat();
        yield chunk;
      }
      return;
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure)) throw thrown;
      attempts.push({ host, isMirror, failure: thrown });
      if (progress.receivedBytes > 0 && thrown.outcome === "invalid") break; // wrong bytes have gone into the hash
    }
  }
  throw failedAttempts(`${job.what}: ${nameOf(descriptor)}`, attempts);
}

/** The layer unpacked from its one blob, or an artifact put together from its files. */
async function fillLayer(download: LayerDownload, target: UnpackTarget): Promise<UnpackedLayer> {
  const { layer } = download.job;
  if (layer.files === undefined) return await unpackLayer(downloadFromAny(download, layer), target);
  const files = layer.files.map((file) => ({ ...file, bytes: downloadFromAny(download, file) }));
  return await unpackArtifact(files, target);
}

/** Downloads, checks and unpacks one layer in a single pass. */
export async function runLayer(job: LayerJob, events: JobEvents, signal: AbortSignal): Promise<LayerResult> {
  const stop = new AbortController();
  const report = { host: "", receivedBytes: 0 };
  const tell = throttle(events);
  using watchdog = watchProgress(job, stop);
  try {
    return await withSessions(job.access, events, async (sessions, http) => {
      try {
        const elsewhere = foreignSources(
          http,
          job.layer.urls.map((url) => new URL(url)),
        );
        const download = {
          sources: [...sessions, ...elsewhere],
          job,
          report,
          watchdog,
          events,
          signal: AbortSignal.any([signal, stop.signal]),
        };
        const { diffId } = job.layer;
        const unpacked = await fillLayer(download, {
          directory: job.directory,
          diffId,
          limits: job.access.limits,
          onProgress(unpackedBytes) {
            watchdog.pat();
            tell({ diffId, downloadedBytes: report.receivedBytes, unpackedBytes });
          },
        });
        return { ...unpacked, host: report.host };
      } finally {
        stop.abort(); // a layer refused half-way leaves a download nobody reads
      }
    });
  } catch (thrown) {
    signal.throwIfAborted();
    throw layerFailure(thrown, `${job.what}: ${nameOf(job.layer)}`);
  }
}

function layerFailure(thrown: unknown, what: string): CriError {
  if (thrown instanceof LayerError) return new CriError(Code.DataLoss, `${what}: ${thrown.message}`, { cause: thrown });
  return storageFailure(thrown, what, "unpacked");
}
