import { getCompileCacheDir } from "node:module";
import { dirname } from "node:path";
import { Worker } from "node:worker_threads";

import { Code, CriError } from "../../cri-api/index.ts";
import type { Token } from "../registry/tokens.ts";
import type { FromWorker, Job, JobResult, LayerProgress, ToWorker } from "./protocol.ts";

/** A job and whoever waits for it. */
export interface PendingJob {
  readonly job: Job;
  readonly signal: AbortSignal;
  readonly onHost?: ((host: string) => void) | undefined;
  readonly onProgress?: ((progress: LayerProgress) => void) | undefined;
  readonly onPiece?: ((bytes: Uint8Array) => Promise<void>) | undefined;
  readonly resolve: (result: JobResult<Job>) => void;
  readonly reject: (reason: unknown) => void;
}

/** One worker thread and the jobs on it. */
export interface ImageThread {
  readonly jobs: ReadonlyMap<number, PendingJob>;
  start(pending: PendingJob): void;
  /** Ends the thread at once; its jobs fail with `why`. */
  end(why: string): Promise<void>;
}

export interface ThreadEvents {
  onToken(key: string, token: Token): void;
  /** A job has settled: there is room. */
  onRoom(): void;
  onEnd(): void;
}

/** A hostile layer that gets past the limits costs its thread, not the daemon. */
const maxHeapMb = 384;
/** Chunks of a layer die young; collecting them late costs memory and saves no time (measured: 30 MB in a pull). */
const maxYoungHeapMb = 6;

function settle(pending: PendingJob, message: Extract<FromWorker, { kind: "done" | "failed" }>): void {
  if (message.kind === "done") pending.resolve(message.result);
  else if (pending.signal.aborted) pending.reject(pending.signal.reason);
  else pending.reject(new CriError(message.code, message.message));
}

type Running = PendingJob & { readonly abort: () => void };
type Piece = Extract<FromWorker, { kind: "piece" }>;

async function takePiece(job: Running | undefined, piece: Piece, post: (message: ToWorker) => void): Promise<void> {
  try {
    await job?.onPiece?.(piece.bytes);
    post({ kind: "taken", id: piece.id });
  } catch {
    job?.abort(); // whoever took the pieces has gone, and knows why
  }
}

/**
 * A thread does not inherit the main thread's compile cache. It has it from its first line on: to take the types out of
 * even one file is half of its start, and loads a compiler in WebAssembly that ends with the thread.
 */
function threadEnvironment(): NodeJS.ProcessEnv {
  const directory = getCompileCacheDir(); // with a folder for this Node's version at its end
  return directory === undefined ? {} : { NODE_COMPILE_CACHE: dirname(directory) };
}

export function startImageThread(events: ThreadEvents): ImageThread {
  const jobs = new Map<number, Running>();
  const worker = new Worker(new URL("./worker.ts", import.meta.url), {
    name: "berth-image",
    env: threadEnvironment(),
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: maxHeapMb, maxYoungGenerationSizeMb: maxYoungHeapMb },
  });
  let nextId = 1;

  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin
  const post = (message: ToWorker): void => worker.postMessage(message);

  function take(id: number): PendingJob | undefined {
    const pending = jobs.get(id);
    jobs.delete(id);
    pending?.signal.removeEventListener("abort", pending.abort);
    if (jobs.size === 0) worker.unref();
    return pending;
  }
  function failAll(why: string): void {
    for (const id of jobs.keys()) take(id)?.reject(new CriError(Code.Internal, why));
    events.onEnd();
  }

  worker.unref(); // an idle thread must not keep the daemon alive
  worker.on("error", (error) => failAll(`an image worker failed: ${error.message}`));
  worker.on("exit", () => failAll("an image worker ended before its work"));
  worker.on("message", (message: FromWorker) => {
    if (message.kind === "token") events.onToken(message.key, message.token);
    else if (message.kind === "host") jobs.get(message.id)?.onHost?.(message.host);
    else if (message.kind === "progress") jobs.get(message.id)?.onProgress?.(message.progress);
    else if (message.kind === "piece") void takePiece(jobs.get(message.id), message, post);
    else {
      const pending = take(message.id);
      if (pending !== undefined) settle(pending, message);
      events.onRoom();
    }
  });
  return {
    jobs,
    start(pending) {
      const id = nextId;
      nextId += 1;
      const abort = (): void => post({ kind: "abort", id });
      jobs.set(id, { ...pending, abort });
      worker.ref();
      post({ kind: "start", id, job: pending.job });
      pending.signal.addEventListener("abort", abort, { once: true });
      if (pending.signal.aborted) abort();
    },
    async end(why) {
      failAll(why);
      await worker.terminate();
    },
  };
}
