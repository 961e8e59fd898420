import { randomUUID } from "node:crypto";
import { access, writeFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Child, ExitStatus, ProcessIdentity, StdioSpec } from "../../native/index.ts";
import {
  helperPath,
  isAlive,
  isEnding,
  openProcess,
  readFileBounded,
  removeFiles,
  spawn,
  within,
} from "../../native/index.ts";
import { isStarted } from "./container-start.ts";
import { killExec } from "./exec-processes.ts";
import { runtimeFailure } from "./failure.ts";
import type { RuntimeHost } from "./host.ts";
import { globalArguments, hiddenDirectories, runtimeEnvironment } from "./invocation.ts";
import { execDirectory } from "./state.ts";
import type { ContainerState } from "./state.ts";
import type { ExecCommand, ExecLimits, ExecResult } from "./types.ts";

/** How long output may still come after the command's end, when a process that it left behind holds the pipes. */
const drainMs = 250;
/** How long the end of a container may take that has ended a command of its own. */
const initLastsMs = 1_000;
const maxLogBytes = 1024 * 1024;

/** One command below the helper that follows it, and the private files that go with it. */
export interface RunningExec {
  /** The helper: the runtime is its child, and the command too as soon as the runtime is done. */
  readonly child: Child;
  readonly container: ContainerState;
  hasEnded(): boolean;
  /** Whether the command itself was executed; false as long as it is the runtime that fails. */
  wasStarted(): Promise<boolean>;
  /** With a console socket: why the runtime failed, which it would else tell the terminal. */
  readLog(): Promise<Buffer>;
  removeFiles(): Promise<void>;
}

/** @throws {CriError} `FailedPrecondition` when the container is not running. */
export async function startExec(
  host: RuntimeHost,
  exec: ExecCommand,
  stdio: readonly StdioSpec[],
  consoleSocket?: string,
): Promise<RunningExec> {
  const container = await requireRunning(host, exec.id);
  const base = join(execDirectory(host.config), randomUUID());
  const files = { spec: `${base}.json`, pid: `${base}.pid`, log: `${base}.log` };
  const made = consoleSocket === undefined ? [files.spec, files.pid] : Object.values(files);
  try {
    await writeFile(files.spec, JSON.stringify(exec.process), { mode: 0o600 });
    const child = await spawn({
      // Detached, the runtime does not wait for pipes that a process in the background keeps, runc hands a terminal over,
      // and neither stays beside the command; the helper gets the command from it and ends with its exit code.
      argv: [
        helperPath,
        "follow",
        files.pid,
        host.config.path,
        ...globalArguments(host.config),
        ...(consoleSocket === undefined ? [] : [`--log=${files.log}`]),
        "exec",
        "--detach",
        `--process=${files.spec}`,
        `--pid-file=${files.pid}`,
        ...(consoleSocket === undefined ? [] : [`--console-socket=${consoleSocket}`]),
        exec.id,
      ],
      env: runtimeEnvironment,
      stdio,
      ...(exec.hostUser ? { pipeOwner: exec.hostUser } : {}),
      processGroup: true,
    });
    let hasEnded = false;
    void child.exited.then(() => (hasEnded = true));
    return {
      child,
      container,
      hasEnded: () => hasEnded,
      wasStarted: async () => await isThere(files.pid),
      readLog: async () => (await readFileBounded(files.log, maxLogBytes)) ?? Buffer.alloc(0),
      removeFiles: () => removeFiles(made),
    };
  } catch (thrown) {
    await removeFiles(made);
    throw thrown;
  }
}

/** crun 1.8.1 enters whatever process has the pid of a dead container's init, and a created one before its start. */
export async function requireRunning(host: RuntimeHost, id: string): Promise<ContainerState> {
  const [state, hasStarted] = await Promise.all([host.states.load(id), isStarted(host, id)]);
  if (!state || !hasStarted || !isAlive(state.init)) {
    throw new CriError(Code.FailedPrecondition, `container "${id}" is not running`);
  }
  return state;
}

export async function execSync(
  host: RuntimeHost,
  signal: AbortSignal,
  exec: ExecCommand,
  limits: ExecLimits,
): Promise<ExecResult> {
  signal.throwIfAborted();
  const command = { ...exec, process: { ...exec.process, terminal: false } }; // both streams apart, whatever the container has
  const running = await startExec(host, command, ["null", "pipe-write", "pipe-write"]);
  try {
    const [, stdoutPipe, stderrPipe] = running.child.stdio;
    if (!stdoutPipe || !stderrPipe) throw new CriError(Code.Internal, "the command's pipes are missing");
    const stdout = collect(stdoutPipe, limits.maxOutputBytes);
    const stderr = collect(stderrPipe, limits.maxOutputBytes);
    const status = await endOf(running, signal, limits.timeoutMs);
    const drained = within(drainMs, Promise.all([stdout.ended, stderr.ended]));
    const [wasStarted] = await Promise.all([running.wasStarted(), drained]);
    for (const pipe of [stdoutPipe, stderrPipe]) pipe.destroy();
    if (!wasStarted) throw await notStarted(host, running.container, exec, stderr.take());
    return { stdout: stdout.take(), stderr: stderr.take(), exitCode: exitCodeOf(status) };
  } finally {
    for (const pipe of running.child.stdio) pipe?.destroy();
    await running.removeFiles();
  }
}

/** The command's end, or the error of whoever ended it; its processes are gone either way. */
async function endOf(running: RunningExec, signal: AbortSignal, timeoutMs: number): Promise<ExitStatus> {
  const { promise: stopped, resolve: stop } = Promise.withResolvers<"timeout" | "abort">();
  const timer = timeoutMs > 0 ? setTimeout(() => stop("timeout"), timeoutMs) : undefined;
  const onAbort = (): void => stop("abort");
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    const first = await Promise.race([running.child.exited, stopped]);
    if (typeof first !== "string") return first;
    await killExec(running);
    if (first === "abort") signal.throwIfAborted();
    throw new CriError(Code.DeadlineExceeded, `command timed out after ${timeoutMs} ms`);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

interface Collected {
  readonly ended: Promise<void>;
  take(): Buffer;
}

/** Reads to the end whatever comes, keeps the first bytes only: a pipe that is not read would stop the command. */
function collect(pipe: Socket, maxBytes: number): Collected {
  const chunks: Buffer[] = [];
  let room = maxBytes;
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  pipe.on("data", (chunk: Buffer) => {
    if (room <= 0) return;
    chunks.push(chunk.length <= room ? chunk : chunk.subarray(0, room));
    room -= chunk.length;
  });
  pipe.on("error", () => undefined);
  pipe.on("close", () => resolve());
  return { ended, take: () => Buffer.concat(chunks) };
}

export function exitCodeOf(status: ExitStatus): number {
  return status.kind === "exited" ? status.code : 128 + status.signal;
}

/** Why the command was not executed. A container that ends takes whoever enters it along: then it is that, not us. */
export async function notStarted(
  host: Pick<RuntimeHost, "config">,
  { init }: Pick<ContainerState, "init">,
  exec: ExecCommand,
  words: Buffer,
): Promise<CriError> {
  const failure = runtimeFailure(words.toString("utf8"), {
    what: `cannot execute a command in container "${exec.id}"`,
    executable: exec.process.args[0],
    imageName: exec.imageName,
    hidden: [exec.bundle, ...hiddenDirectories(host.config)],
  });
  const isEnded = failure.code === Code.Internal ? await endsSoon(init) : isEnding(init); // its files may be gone with it
  if (!isEnded) return failure;
  return new CriError(Code.FailedPrecondition, `container "${exec.id}" is not running`, { cause: failure });
}

/** An init that is killed outlives everybody in its PID namespace by a moment; others may be killed before it. */
async function endsSoon(init: ProcessIdentity): Promise<boolean> {
  using process = isEnding(init) ? undefined : openProcess(init);
  if (!process) return true;
  await within(initLastsMs, process.exited);
  return isEnding(init);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
