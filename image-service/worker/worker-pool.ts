import { availableParallelism } from "node:os";

import { Code, CriError } from "../../cri-api/index.ts";
import { archivedBytes } from "../archive/contents.ts";
import type { Token } from "../registry/tokens.ts";
import { type ImageThread, type PendingJob, startImageThread } from "./image-thread.ts";
import type { Job, JobResult, LayerProgress } from "./protocol.ts";

/** Runs image jobs on threads of their own, started on demand and ended when idle. */
export interface WorkerPool extends AsyncDisposable {
  /**
   * Settles only when a job that was started has really ended, an aborted one too: what it wrote can be removed then.
   *
   * @throws {CriError} the job's own, or `signal.reason` after an abort, or `Internal` when the thread died.
   */
  run<T extends Job>(job: T, options: RunOptions): Promise<JobResult<T>>;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  /** Told of each host that is asked. */
  readonly onHost?: ((host: string) => void) | undefined;
  readonly onProgress?: ((progress: LayerProgress) => void) | undefined;
  /** Takes the pieces of a reassembled layer in their order; the job waits for it. */
  readonly onPiece?: ((bytes: Uint8Array) => Promise<void>) | undefined;
}

export interface WorkerPoolOptions {
  readonly onToken: (key: string, token: Token) => void;
  /** The last thread has ended: what the work left in memory can go. */
  readonly onIdle: () => void;
  readonly maxThreads?: number | undefined;
  readonly idleMs?: number | undefined;
}

/** Layers wait mostly for the network, so a thread takes several; the rest queue. */
const layersPerThread = 4;
const defaultIdleMs = 5000;
const maxDefaultThreads = 4;

interface PoolState {
  readonly options: WorkerPoolOptions;
  readonly maxThreads: number;
  /** With the timer that ends an idle one. */
  readonly threads: Map<ImageThread, NodeJS.Timeout | undefined>;
  readonly queue: PendingJob[];
  readonly endings: Set<Promise<void>>;
  isClosed: boolean;
}

/** The others are short, or others wait for them. */
const layerJobs: ReadonlySet<Job["kind"]> = new Set(["layer", "unpack", "reassemble", "verify"]);

function layersOn(thread: ImageThread): number {
  return [...thread.jobs.values()].filter(({ job }) => layerJobs.has(job.kind)).length;
}

function sizeOf(job: Job): number {
  if (job.kind === "layer") return job.layer.size;
  return job.kind === "unpack" ? archivedBytes(job.layer) : 0;
}

/** Bytes that the thread's layers came with: each takes its thread for as long as it is large. */
function bytesOn(thread: ImageThread): number {
  return [...thread.jobs.values()].reduce((sum, { job }) => sum + sizeOf(job), 0);
}

function endThread(pool: PoolState, thread: ImageThread, why: string): void {
  clearTimeout(pool.threads.get(thread));
  pool.threads.delete(thread);
  const ending = thread.end(why).finally(() => {
    pool.endings.delete(ending);
    if (!pool.isClosed && pool.threads.size + pool.endings.size === 0) pool.options.onIdle();
  });
  pool.endings.add(ending);
}

function addThread(pool: PoolState): ImageThread {
  const thread = startImageThread({
    onToken: pool.options.onToken,
    onRoom() {
      dispatch(pool);
      if (thread.jobs.size === 0 && pool.threads.has(thread)) retireLater(pool, thread);
    },
    onEnd() {
      clearTimeout(pool.threads.get(thread));
      if (pool.threads.delete(thread)) dispatch(pool);
    },
  });
  pool.threads.set(thread, undefined);
  return thread;
}

function retireLater(pool: PoolState, thread: ImageThread): void {
  clearTimeout(pool.threads.get(thread));
  const timer = setTimeout(() => endThread(pool, thread, "idle"), pool.options.idleMs ?? defaultIdleMs);
  pool.threads.set(thread, timer.unref());
}

/** The least busy thread, or a new one while all are busy and there may be more; nothing when a layer has to wait. */
function chooseThread(pool: PoolState, { job }: PendingJob): ImageThread | undefined {
  const hasRoom = (thread: ImageThread): boolean => !layerJobs.has(job.kind) || layersOn(thread) < layersPerThread;
  const [least] = [...pool.threads.keys()]
    .filter(hasRoom)
    .sort((left, right) => bytesOn(left) - bytesOn(right) || left.jobs.size - right.jobs.size);
  const isBusy = least === undefined || least.jobs.size > 0;
  return isBusy && pool.threads.size < pool.maxThreads ? addThread(pool) : least;
}

function dispatch(pool: PoolState): void {
  for (const pending of pool.queue.splice(0)) {
    const thread = chooseThread(pool, pending);
    if (thread !== undefined) clearTimeout(pool.threads.get(thread));
    if (thread === undefined) pool.queue.push(pending);
    else thread.start(pending);
  }
}

function enqueue(pool: PoolState, job: Job, options: RunOptions): Promise<JobResult<Job>> {
  const { signal } = options;
  signal.throwIfAborted();
  if (pool.isClosed) throw new CriError(Code.Unavailable, "the image service is shutting down");
  const { promise, resolve, reject } = Promise.withResolvers<JobResult<Job>>();
  const pending: PendingJob = { ...options, job, resolve, reject };
  pool.queue.push(pending);
  dispatch(pool);
  const leave = (): void => {
    const index = pool.queue.indexOf(pending);
    if (index === -1) return; // it has started, and ends by itself
    pool.queue.splice(index, 1);
    reject(signal.reason);
  };
  signal.addEventListener("abort", leave, { once: true });
  return promise.finally(() => signal.removeEventListener("abort", leave));
}

export function createWorkerPool(options: WorkerPoolOptions): WorkerPool {
  const pool: PoolState = {
    options,
    maxThreads: options.maxThreads ?? Math.min(maxDefaultThreads, availableParallelism()),
    threads: new Map(),
    queue: [],
    endings: new Set(),
    isClosed: false,
  };
  return {
    async run<T extends Job>(job: T, runOptions: RunOptions): Promise<JobResult<T>> {
      return (await enqueue(pool, job, runOptions)) as JobResult<T>; // a worker answers each kind with its own result
    },
    async [Symbol.asyncDispose]() {
      pool.isClosed = true;
      const why = "the image service is shutting down";
      for (const { reject } of pool.queue.splice(0)) reject(new CriError(Code.Unavailable, why));
      for (const thread of pool.threads.keys()) endThread(pool, thread, why);
      await Promise.all(pool.endings);
    },
  };
}
