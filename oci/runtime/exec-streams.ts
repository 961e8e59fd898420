import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { ReadStream } from "node:tty";
import { Code, CriError } from "../../cri-api/index.ts";
import { openConsoleSocket, setWindowSize } from "../../native/index.ts";
import { exitCodeOf, notStarted, startExec } from "./exec.ts";
import type { RunningExec } from "./exec.ts";
import { killExec } from "./exec-processes.ts";
import type { RuntimeHost } from "./host.ts";
import { execDirectory } from "./state.ts";
import type { ExecCommand, ExecStreams } from "./types.ts";

const maxReasonBytes = 64 * 1024;

export async function exec(host: RuntimeHost, signal: AbortSignal, command: ExecCommand): Promise<ExecStreams> {
  signal.throwIfAborted();
  if (!command.process.terminal) return await execOnPipes(host, signal, command);
  return await execOnTerminal(host, signal, command);
}

async function execOnPipes(host: RuntimeHost, signal: AbortSignal, command: ExecCommand): Promise<ExecStreams> {
  const running = await startExec(host, command, ["pipe-read", "pipe-write", "pipe-write"]);
  const [stdin, stdout, stderr] = running.child.stdio;
  if (!stdin || !stdout || !stderr) throw new CriError(Code.Internal, "the command's pipes are missing");
  stdin.on("error", () => undefined); // EPIPE: a command need not read its input
  try {
    if (!(await hasStarted(running, signal)))
      throw await notStarted(host, running.container, command, await readAll(stderr));
  } catch (thrown) {
    await abandon(running);
    throw thrown;
  }
  return { stdin, stdout, stderr, resize: () => undefined, ...endingOf(running) };
}

/** The runtime makes the terminal inside the container and sends us its other side. */
async function execOnTerminal(host: RuntimeHost, signal: AbortSignal, command: ExecCommand): Promise<ExecStreams> {
  const socketPath = join(execDirectory(host.config), `${randomBytes(6).toString("hex")}.tty`);
  await using socket = await openConsoleSocket(socketPath);
  const running = await startExec(host, command, ["null", "null", "null"], socketPath);
  try {
    if (!(await hasStarted(running, signal)))
      throw await notStarted(host, running.container, command, await running.readLog());
    return terminalStreams(await socket.terminal, running);
  } catch (thrown) {
    await abandon(running);
    throw thrown;
  }
}

function terminalStreams(fd: number, running: RunningExec): ExecStreams {
  const terminal = new ReadStream(fd);
  const output = new PassThrough();
  terminal.on("error", () => output.end()); // EIO is how a terminal says that nobody is left on the other side
  terminal.pipe(output);
  return {
    stdin: terminal,
    stdout: output,
    stderr: undefined,
    resize: ({ width, height }) => {
      if (!terminal.destroyed) setWindowSize(fd, { rows: height, columns: width });
    },
    ...endingOf(running),
  };
}

function endingOf(running: RunningExec): Pick<ExecStreams, "exited" | "kill"> {
  const end = async (): Promise<number> => {
    const status = await running.child.exited;
    await running.removeFiles();
    return exitCodeOf(status);
  };
  return { exited: end(), kill: () => killExec(running) };
}

/** The runtime writes the pid file when the command has been executed; without one, its own end is a failure. */
async function hasStarted(running: RunningExec, signal: AbortSignal): Promise<boolean> {
  for (let pauseMs = 2; !running.hasEnded(); pauseMs = Math.min(2 * pauseMs, 20)) {
    if (await running.wasStarted()) return true;
    signal.throwIfAborted();
    await Promise.race([running.child.exited, sleep(pauseMs)]);
  }
  return await running.wasStarted();
}

async function abandon(running: RunningExec): Promise<void> {
  await killExec(running);
  for (const pipe of running.child.stdio) pipe?.destroy();
  await running.removeFiles();
}

async function readAll(stream: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > maxReasonBytes) break;
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}
