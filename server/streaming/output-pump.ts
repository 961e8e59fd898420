import type { Readable, Writable } from "node:stream";

/** How much output may wait for a client, and for how long a full buffer may stop its source. */
export interface OutputPolicy {
  readonly maxBufferedBytes: number;
  /** Milliseconds; undefined lets the source wait for ever. */
  readonly maxStallMs: number | undefined;
}

/**
 * After exit, output is over when the pipe has been empty for this long. Waiting for its end is not possible: a
 * process that outlives its exec keeps the pipe open.
 */
const quietMs = 200;
/** More than a pipe can hold: what comes after it was written after the exit, by somebody else. */
const maxBytesAfterExit = 2 * 1024 * 1024;

/**
 * Copies a process's output to its client, never holding more than the policy allows. Resolves when the source ended,
 * or when the process exited and its output ran dry.
 *
 * @throws if the client did not take the buffered output in the time the policy gives it, or is gone.
 */
export function pumpOutput(
  source: Readable,
  sink: Writable,
  policy: OutputPolicy,
  exited: Promise<unknown>,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let stallTimer: NodeJS.Timeout | undefined;
  let waitingBytes = 0;
  let isDone = false;

  const finish = (error?: Error): void => {
    if (isDone) return;
    isDone = true;
    clearTimeout(stallTimer);
    quiet.stop();
    if (error === undefined) resolve();
    else reject(error);
  };
  const quiet = createQuietWatch(source, finish);
  const stall = (): void => {
    source.pause();
    if (policy.maxStallMs === undefined) return;
    const error = new Error("client does not read its output");
    stallTimer = setTimeout(() => finish(error), policy.maxStallMs);
  };
  const taken = (bytes: number): void => {
    waitingBytes -= bytes;
    if (isDone || !source.isPaused() || waitingBytes > policy.maxBufferedBytes / 2) return;
    clearTimeout(stallTimer);
    source.resume();
    quiet.rearm();
  };

  source.on("data", (chunk: Buffer) => {
    if (isDone) return;
    waitingBytes += chunk.length;
    sink.write(chunk, () => taken(chunk.length));
    if (waitingBytes > policy.maxBufferedBytes) stall();
    quiet.saw(chunk.length);
  });
  source.on("end", () => finish());
  source.on("close", () => finish());
  source.on("error", () => finish()); // a terminal's end is EIO; anything else shows in the exit code
  sink.on("error", (error) => finish(error));
  sink.on("close", () => finish(new Error("client has closed its output stream")));
  exited.then(quiet.start, quiet.start);
  return promise;
}

interface QuietWatch {
  readonly start: () => void;
  saw(bytes: number): void;
  rearm(): void;
  stop(): void;
}

/** From its start on, calls back once the source, while not paused, gave nothing for a moment. */
function createQuietWatch(source: Readable, onQuiet: () => void): QuietWatch {
  let timer: NodeJS.Timeout | undefined;
  let state: "waiting" | "watching" | "stopped" = "waiting";
  let seenBytes = 0;

  const rearm = (): void => {
    clearTimeout(timer);
    if (state !== "watching" || source.isPaused()) return;
    if (seenBytes > maxBytesAfterExit) onQuiet();
    else timer = setTimeout(confirm, quietMs);
  };
  // A late timer may fire before the loop has looked at the pipe: look once more before believing it.
  const confirm = (): void => {
    const before = seenBytes;
    const decide = (): void => (seenBytes === before && !source.isPaused() ? onQuiet() : rearm());
    setImmediate(() => setImmediate(decide));
  };
  return {
    rearm,
    start() {
      if (state === "waiting") state = "watching";
      rearm();
    },
    saw(bytes) {
      if (state === "watching") seenBytes += bytes;
      rearm();
    },
    stop() {
      state = "stopped";
      clearTimeout(timer);
    },
  };
}
