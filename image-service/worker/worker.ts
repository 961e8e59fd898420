import { parentPort } from "node:worker_threads";

import { toCriError } from "../../cri-api/index.ts";
import type { JobEvents } from "./jobs.ts";
import type { FromWorker, Job, JobResult, ToWorker } from "./protocol.ts";

// The entry of an image worker: takes jobs, answers each once.

const port = parentPort;
if (port === null) throw new Error("this module runs as a worker thread only");

const running = new Map<number, AbortController>();
const send = (message: FromWorker): void => port.postMessage(message);

async function run(job: Job, events: JobEvents, signal: AbortSignal): Promise<JobResult<Job>> {
  const jobs = await import("./jobs.ts"); // the registry client costs megabytes that a measurement does not need
  switch (job.kind) {
    case "resolve":
      return await jobs.runResolve(job, events, signal);
    case "layer":
      return await jobs.runLayer(job, events, signal);
    case "usage":
      return await jobs.runUsage(job.directory, signal);
  }
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
