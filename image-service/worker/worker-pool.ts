import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

import { Code, CriError } from "../../cri-api/index.ts";
import type { Token } from "../registry/tokens.ts";
import type { FromWorker, Job, JobResult, LayerProgress, ToWorker } from "./protocol.ts";

/** Runs image jobs on threads of their own, started on demand and ended when idle. */
export interface WorkerPool extends AsyncDisposable {
  /**
   * Settles only when the job has really ended, an aborted one too: what it wrote can be removed then.
   *
   * @throws {CriError} the job's own, or `signal.reason` after an abort, or `Internal` when the thread died.
   */
  run<T extends Job>(job: T, options: RunOptions): Promise<JobResult<T>>;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: ((progress: LayerProgress) => void) | undefined;
}

export interface WorkerPoolOptions {
  readonly onToken: (key: string, token: Token) => void;
  readonly maxThreads?: number | undefined;
  /** Layers wait mostly for the network, so a thread takes several; the rest queue. */
  readonly layersPerThread?: number | undefined;
  readonly idleMs?: number | undefined;
}

interface Pending {
  readonly job: Job;
  readonly options: RunOptions;
  readonly resolve: (result: JobResult<Job>) => void;
  readonly reject: (reason: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly jobs: Map<number, Pending>;
  idleTimer: NodeJS.Timeout | undefined;
}

const maxHeapMb = 384;

function layersOn(thread: Thread): number {
  let layers = 0;
  for (const { job } of thread.jobs.values()) if (job.kind === "layer") layers += 1;
  return layers;
}

export function createWorkerPool(options: WorkerPoolOptions): WorkerPool {
  const maxThreads = options.maxThreads ?? Math.min(4, availableParallelism());
  const layersPerThread = options.layersPerThread ?? 4;
  const idleMs = options.idleMs ?? 5000;
  const threads = new Set<Thread>();
  const ending = new Set<Promise<unknown>>();
  const queue: Pending[] = [];
  let nextId = 1;
  let isClosed = false;

  function fail(thread: Thread, why: string): void {
    threads.delete(thread);
    clearTimeout(thread.idleTimer);
    for (const { reject } of thread.jobs.values()) reject(new CriError(Code.Internal, `an image worker ended: ${why}`));
    thread.jobs.clear();
    dispatch();
  }

  function end(thread: Thread): void {
    threads.delete(thread);
    clearTimeout(thread.idleTimer);
    const ended = thread.worker.terminate().finally(() => ending.delete(ended));
    ending.add(ended);
  }

  function settle(thread: Thread, id: number, settleJob: (pending: Pending) => void): void {
    const pending = thread.jobs.get(id);
    if (pending === undefined) return;
    thread.jobs.delete(id);
    settleJob(pending);
    dispatch();
    if (thread.jobs.size > 0 || !threads.has(thread)) return;
    thread.idleTimer = setTimeout(() => end(thread), idleMs);
    thread.idleTimer.unref();
  }

  function onMessage(thread: Thread, message: FromWorker): void {
    if (message.kind === "token") options.onToken(message.key, message.token);
    else if (message.kind === "progress") thread.jobs.get(message.id)?.options.onProgress?.(message.progress);
    else if (message.kind === "done") settle(thread, message.id, ({ resolve }) => resolve(message.result));
    else
      settle(thread, message.id, ({ reject, options: { signal } }) => {
        reject(signal.aborted ? signal.reason : new CriError(message.code, message.message));
      });
  }

  function startThread(): Thread {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), {
      name: "berth-image",
      env: {},
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: maxHeapMb },
    });
    const thread: Thread = { worker, jobs: new Map(), idleTimer: undefined };
    worker.on("message", (message: FromWorker) => onMessage(thread, message));
    worker.on("error", (error) => fail(thread, error.message));
    worker.on("exit", (code) => fail(thread, `exit code ${code}`));
    worker.unref(); // work in flight is awaited by whoever asked for it
    threads.add(thread);
    return thread;
  }

  /** The least busy thread, or a new one while all are busy and there may be more. */
  function chooseThread(isLayer: boolean): Thread | undefined {
    const busyness = (thread: Thread): number => thread.jobs.size;
    const [least] = [...threads].sort((left, right) => busyness(left) - busyness(right));
    if (least === undefined || (busyness(least) > 0 && threads.size < maxThreads)) return startThread();
    return isLayer && layersOn(least) >= layersPerThread ? undefined : least;
  }

  function dispatch(): void {
    for (let index = 0; index < queue.length; ) {
      const pending = queue[index];
      const thread = pending === undefined ? undefined : chooseThread(pending.job.kind === "layer");
      if (pending === undefined || thread === undefined) {
        index += 1;
        continue;
      }
      queue.splice(index, 1);
      begin(thread, pending);
    }
    for (const { worker, jobs } of threads) jobs.size > 0 ? worker.ref() : worker.unref();
  }

  function begin(thread: Thread, pending: Pending): void {
    const id = nextId;
    nextId += 1;
    clearTimeout(thread.idleTimer);
    thread.jobs.set(id, pending);
    const post = (message: ToWorker): void => thread.worker.postMessage(message);
    post({ kind: "start", id, job: pending.job });
    const { signal } = pending.options;
    const abort = (): void => post({ kind: "abort", id });
    signal.addEventListener("abort", abort, { once: true });
    if (signal.aborted) abort();
  }

  function drop(pending: Pending, reason: unknown): void {
    const index = queue.indexOf(pending);
    if (index === -1) return;
    queue.splice(index, 1);
    pending.reject(reason);
  }

  return {
    run<T extends Job>(job: T, runOptions: RunOptions): Promise<JobResult<T>> {
      const { signal } = runOptions;
      const result = new Promise<JobResult<Job>>((resolve, reject) => {
        signal.throwIfAborted();
        if (isClosed) throw new CriError(Code.Unavailable, "the image service is shutting down");
        const pending = { job, options: runOptions, resolve, reject };
        signal.addEventListener("abort", () => drop(pending, signal.reason), { once: true });
        queue.push(pending);
        dispatch();
      });
      return result as Promise<JobResult<T>>;
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      for (const pending of queue.splice(0)) pending.reject(new CriError(Code.Unavailable, "shutting down"));
      for (const thread of threads) {
        const { jobs } = thread;
        end(thread);
        for (const { reject } of jobs.values()) reject(new CriError(Code.Unavailable, "shutting down"));
        jobs.clear();
      }
      await Promise.all(ending);
    },
  };
}
