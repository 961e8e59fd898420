import { constants } from "node:os";
import type { Socket } from "node:net";
import { type Child, type ExitStatus, spawn } from "./process.ts";

/** A program to run to its end. */
export interface RunCommand {
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Written to standard input, which is /dev/null without it. */
  readonly input?: Uint8Array | string;
  /** Kept per stream, 1 MiB unless said; what exceeds it is read and dropped. */
  readonly maxOutputBytes?: number;
  readonly signal: AbortSignal;
}

/** What a program left. */
export interface RunResult {
  readonly status: ExitStatus;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** Whether either stream exceeded `maxOutputBytes`. */
  readonly truncated: boolean;
}

/** How long a grandchild that keeps our pipe may delay the result. */
const drainMs = 250;
/** How long a killed process may take to die (one that waits on a dead disk does not). */
const killMs = 2000;

interface Collector {
  readonly ended: Promise<void>;
  readonly taken: () => Buffer;
  readonly isTruncated: () => boolean;
}

function collect(stream: Socket, limit: number): Collector {
  const { promise, resolve } = Promise.withResolvers<void>();
  const chunks: Buffer[] = [];
  let size = 0;
  let isTruncated = false;
  stream.on("data", (chunk: Buffer) => {
    const kept = chunk.subarray(0, limit - size);
    if (kept.length > 0) chunks.push(kept);
    size += kept.length;
    isTruncated ||= kept.length < chunk.length;
  });
  stream.on("error", () => resolve());
  stream.on("close", () => resolve());
  return { ended: promise, taken: () => Buffer.concat(chunks), isTruncated: () => isTruncated };
}

function feed(stdin: Socket | undefined, input: Uint8Array | string | undefined): void {
  if (!stdin || input === undefined) return;
  stdin.on("error", () => stdin.destroy()); // the program need not read its input
  stdin.end(input);
}

/**
 * Resolves when the work does or the time has passed, and leaves no timer behind. A thread that was kept busy comes to
 * its timers before it reads: what lies in a pipe by then is read first.
 */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => setImmediate(resolve), ms);
  await Promise.race([work, promise]);
  clearTimeout(timer);
}

async function waitForExit(child: Child, signal: AbortSignal): Promise<ExitStatus> {
  const { promise: aborted, resolve: tellAborted } = Promise.withResolvers<undefined>();
  const onAbort = (): void => {
    child.killGroup(constants.signals.SIGKILL);
    tellAborted(undefined);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  const status = await Promise.race([child.exited, aborted]);
  signal.removeEventListener("abort", onAbort);
  if (status && !signal.aborted) return status;
  await within(killMs, child.exited);
  throw signal.reason;
}

/**
 * Runs a program in a process group of its own and collects its output. Resolves once the program has ended and its
 * pipes are closed; a grandchild that holds a pipe delays that by 250 ms at most. The exit status is a result, not an
 * error.
 *
 * @throws {SyscallError} if it cannot be started.
 * @throws `signal.reason` on abort, after SIGKILL to the whole group and the reaping of the program (waited for 2 s at
 * most: a process in an uninterruptible sleep is reaped later).
 */
export async function run(command: RunCommand): Promise<RunResult> {
  command.signal.throwIfAborted();
  const child = await spawn({
    argv: command.argv,
    env: command.env,
    ...(command.cwd === undefined ? {} : { cwd: command.cwd }),
    stdio: [command.input === undefined ? "null" : "pipe-read", "pipe-write", "pipe-write"],
    processGroup: true,
  });
  try {
    feed(child.stdio[0], command.input);
    const limit = command.maxOutputBytes ?? 1024 * 1024;
    const [stdout, stderr] = [child.stdio[1], child.stdio[2]].map((stream) => stream && collect(stream, limit));
    const status = await waitForExit(child, command.signal);
    await within(drainMs, Promise.all([stdout?.ended, stderr?.ended]));
    return {
      status,
      stdout: stdout?.taken() ?? Buffer.alloc(0),
      stderr: stderr?.taken() ?? Buffer.alloc(0),
      truncated: [stdout, stderr].some((stream) => stream?.isTruncated()),
    };
  } finally {
    for (const stream of child.stdio) stream?.destroy();
  }
}
