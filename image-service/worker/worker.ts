import { flushCompileCache } from "node:module";
import { parentPort } from "node:worker_threads";

import type { Authorities } from "../registry/authorities.ts";
import type { RangedBlobs } from "../registry/blob-ranges.ts";
import { type FromWorker, type Job, type JobResult, maxPieces, type ToWorker } from "./protocol.ts";
import type { JobEvents } from "./registry-jobs.ts";

// The entry of an image worker: takes jobs, answers each once. What a job needs is loaded with its first one.

const port = parentPort;
if (port === null) throw new Error("this module runs as a worker thread only");

const ranged: RangedBlobs = { count: 0 };
let authorities: Promise<Authorities> | undefined;
async function makeAuthorities(): Promise<Authorities> {
  return (await import("../registry/authorities.ts")).createAuthorities();
}

interface Running extends AbortController {
  /** Pieces on their way, and whoever waits for there to be fewer. */
  pieces: number;
  onTaken: (() => void) | undefined;
}

const running = new Map<number, Running>();
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port has no origin
const send = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

async function run(job: Job, events: JobEvents, signal: AbortSignal): Promise<JobResult<Job>> {
  switch (job.kind) {
    case "read-archive":
      return await (await import("./archive-jobs.ts")).runReadArchive(job, signal);
    case "unpack":
      return await (await import("./archive-jobs.ts")).runUnpack(job, signal);
    case "reassemble":
      return await (await import("./stored-jobs.ts")).runReassemble(job, events, signal);
    case "verify":
      return await (await import("./stored-jobs.ts")).runVerify(job, signal);
    case "resolve":
    case "layer":
    case "signatures":
  }
  const jobs = await import("./registry-jobs.ts");
  flushCompileCache(); // a thread is ended from outside, where nothing would be saved
  if (job.kind === "signatures") return await (await import("./signatures-job.ts")).runSignatures(job, events, signal);
  return job.kind === "resolve" ? await jobs.runResolve(job, events, signal) : await jobs.runLayer(job, events, signal);
}

/** Hands a piece over, and waits while too many are on their way. */
async function sendPiece(id: number, job: Running, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  job.pieces += 1;
  send({ kind: "piece", id, bytes }, [bytes.buffer]);
  if (job.pieces < maxPieces) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  job.onTaken = resolve;
  const onAbort = (): void => resolve();
  job.signal.addEventListener("abort", onAbort);
  await promise;
  job.signal.removeEventListener("abort", onAbort); // a large layer has very many pieces
  job.signal.throwIfAborted();
}

function takeWord(id: number): void {
  const job = running.get(id);
  if (job === undefined) return;
  job.pieces -= 1;
  job.onTaken?.();
}

async function start(id: number, job: Job): Promise<void> {
  const controller: Running = Object.assign(new AbortController(), { pieces: 0, onTaken: undefined });
  running.set(id, controller);
  const events: JobEvents = {
    authorities: () => (authorities ??= makeAuthorities()),
    ranged,
    onHost: (host) => send({ kind: "host", id, host }),
    onProgress: (progress) => send({ kind: "progress", id, progress }),
    onToken: (key, token) => send({ kind: "token", key, token }),
    onPiece: (bytes) => sendPiece(id, controller, bytes),
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
  else if (message.kind === "taken") takeWord(message.id);
  else running.get(message.id)?.abort();
});
