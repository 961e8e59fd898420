import { enableCompileCache, flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";

import type { FromWorker, Job, JobResult, ThreadData, ToWorker } from "./protocol.ts";
import type { JobEvents } from "./registry-jobs.ts";

// The entry of an image worker: takes jobs, answers each once. What a job needs is loaded with its first one, when the
// compile cache is at hand.

const port = parentPort;
if (port === null) throw new Error("this module runs as a worker thread only");

const { compileCacheDirectory } = workerData as ThreadData;
if (compileCacheDirectory !== undefined) enableCompileCache(compileCacheDirectory);

const running = new Map<number, AbortController>();
const send = (message: FromWorker): void => port.postMessage(message);

async function run(job: Job, events: JobEvents, signal: AbortSignal): Promise<JobResult<Job>> {
  const jobs = await import("./registry-jobs.ts");
  flushCompileCache(); // a thread is ended from outside, where nothing would be saved
  if (job.kind === "signatures") return await (await import("./signatures-job.ts")).runSignatures(job, events, signal);
  return job.kind === "resolve" ? await jobs.runResolve(job, events, signal) : await jobs.runLayer(job, events, signal);
}

async function start(id: number, job: Job): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  const events: JobEvents = {
    onProgress: (progress) => send({ kind: "progress", id, progress }),
    onToken: (key, token) => send({ kind: "token", key, token }),
  };
  try {
    send({ kind: "done", id, result: await run(job, events, controller.signal) });
  } catch (thrown) {
    const { toCriError } = await import("../../cri-api/index.ts");
    const { code, message } = toCriError(thrown);
    send({ kind: "failed", id, code, message });
  } finally {
    running.delete(id);
  }
}

port.on("message", (message: ToWorker) => {
  if (message.kind === "start") void start(message.id, message.job);
  else running.get(message.id)?.abort();
});
