import { randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import type { ProcessIdentity, SeqpacketHandlers, SeqpacketSocket } from "../../native/index.ts";
import { isAlive, openProcess, removeTree } from "../../native/index.ts";
import { notStarted, requireRunning } from "./exec.ts";
import { hunt } from "./exec-processes.ts";
import type { RuntimeHost } from "./host.ts";
import { execDirectory } from "./state.ts";
import type { ExecCommand, ExecStreams } from "./types.ts";

/** As much as conmon takes at once. */
const maxPacketBytes = 32 * 1024;
/** What a command whose monitor was killed reads as. */
const unknownExitCode = 255;

/** A command on a terminal whose other side the monitor holds, as it does for containers. */
export async function execBelowMonitor(
  host: RuntimeHost,
  signal: AbortSignal,
  command: ExecCommand,
): Promise<ExecStreams> {
  const { id } = command;
  const container = await requireRunning(host, id);
  const directory = join(execDirectory(host.config), randomUUID());
  await using undo = new AsyncDisposableStack();
  undo.defer(() => removeTree(directory));
  undo.defer(() => host.monitor.end(directory, 0));
  await mkdir(directory, { mode: 0o700 });
  const processFile = join(directory, "process.json");
  await writeFile(processFile, JSON.stringify(command.process), { mode: 0o600 });

  const output = createOutput();
  const outcome = await host.monitor.execOnTerminal(signal, { id, directory, processFile, handlers: output.handlers });
  if (outcome.kind === "failed") throw notStarted(host, command, Buffer.from(outcome.output));

  const { monitor, socket } = outcome;
  output.connect(socket);
  const cleanUp = undo.move();
  const killBelow = hunt({ pid: monitor.pid, hasEnded: () => !isAlive(monitor) }, container);
  const exited = followExit(host, monitor, { id, directory }, cleanUp);
  return {
    stdin: createInput(socket),
    stdout: output.stream,
    stderr: undefined,
    exited,
    resize: (size) => void host.monitor.resize(directory, size).catch(() => undefined),
    kill: async () => {
      await killBelow();
      await exited;
    },
  };
}

async function followExit(
  host: RuntimeHost,
  monitor: ProcessIdentity,
  exec: { readonly id: string; readonly directory: string },
  cleanUp: AsyncDisposableStack,
): Promise<number> {
  await using _ = cleanUp;
  await openProcess(monitor)?.exited;
  return await host.monitor.readExecExit(exec).catch(() => unknownExitCode);
}

interface Output {
  readonly stream: Readable;
  readonly handlers: SeqpacketHandlers;
  /** Until then nothing is held back; it takes only the start of a command. */
  connect(socket: SeqpacketSocket): void;
}

/** A reader that is slow slows the monitor down, and so the command. */
function createOutput(): Output {
  let connected: SeqpacketSocket | undefined;
  const stream = new Readable({
    read: () => connected?.resume(),
    destroy: (error, done) => {
      connected?.close();
      done(error);
    },
  });
  return {
    stream,
    handlers: {
      message(packet) {
        if (!stream.push(packet.subarray(1))) connected?.pause(); // the first byte names the stream: there is but one
      },
      closed: () => void stream.push(null),
    },
    connect: (socket) => {
      connected = socket;
    },
  };
}

function createInput(socket: SeqpacketSocket): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      sendAll(socket, chunk).then(
        () => done(),
        () => done(), // the command has ended: what it is sent is lost, as on any terminal
      );
    },
  });
}

async function sendAll(socket: SeqpacketSocket, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += maxPacketBytes) {
    await socket.send(bytes.subarray(at, at + maxPacketBytes));
  }
}
