import type { Readable, Writable } from "node:stream";
import type { Call } from "../../cri-api/index.ts";
import { untilAborted } from "../../native/index.ts";
import type { ProcessStreams, TerminalSize } from "./backend.ts";
import { type OutputPolicy, pumpOutput } from "./output-pump.ts";
import type { StreamSession } from "./session.ts";
import { type CommandStatus, statusOfExit, statusOfFailure } from "./status.ts";
import { createSizeReader } from "./terminal-size.ts";

/** The client's ends of a command's streams, over whatever they travel. Absent ones were not asked for. */
export interface CommandChannels {
  readonly stdin: Readable | undefined;
  readonly stdout: Writable | undefined;
  readonly stderr: Writable | undefined;
  readonly resize: Readable | undefined;
  /** Sends what is left and the status, says goodbye, and resolves when the client has left too. */
  finish(status: CommandStatus): Promise<void>;
}

/** Runs an exec or an attach from its start to the client's leave. Never rejects: failures are told to the client. */
export async function runRemoteCommand(
  session: StreamSession,
  channels: CommandChannels,
  policy: OutputPolicy,
  start: (call: Call) => Promise<ProcessStreams>,
): Promise<void> {
  const { log, signal } = session.call;
  const status = await serveCommand(session, channels, policy, start).catch((thrown: unknown) => {
    if (signal.aborted) log.info({ reason: signal.reason }, "streaming client left or was dropped");
    else log.info({ err: thrown }, "streaming command failed");
    return statusOfFailure(thrown);
  });
  if (signal.aborted) return;
  await channels.finish(status);
}

async function serveCommand(
  session: StreamSession,
  channels: CommandChannels,
  policy: OutputPolicy,
  start: (call: Call) => Promise<ProcessStreams>,
): Promise<CommandStatus> {
  const { call } = session;
  await using streams = await start(call);
  feedStdin(channels.stdin, streams.stdin);
  feedResize(channels.resize, streams);
  const outputs = Promise.all([
    copyOutput(streams.stdout, channels.stdout, policy, streams.exited),
    copyOutput(streams.stderr, channels.stderr, policy, streams.exited),
  ]);
  outputs.catch((error: Error) => session.end(error)); // it takes no output, so it would take no status either
  const [exit] = await untilAborted(Promise.all([streams.exited, outputs]), call.signal);
  return statusOfExit(exit);
}

async function copyOutput(
  source: Readable | undefined,
  sink: Writable | undefined,
  policy: OutputPolicy,
  exited: Promise<unknown>,
): Promise<void> {
  if (source === undefined) return;
  if (sink !== undefined) return pumpOutput(source, sink, policy, exited);
  source.on("error", () => undefined);
  source.resume(); // nobody asked for it; unread, it would stop the process
}

/** The client's end of stdin is passed on as such; its failure is not ours to report, the process just reads no more. */
function feedStdin(source: Readable | undefined, sink: Writable | undefined): void {
  if (source === undefined) return;
  source.on("error", () => undefined);
  if (sink === undefined) {
    source.resume();
    return;
  }
  sink.on("error", () => discard(source, sink));
  sink.on("close", () => discard(source, sink));
  source.pipe(sink);
}

/** The process reads no more; input still to come must not stop the connection. */
function discard(source: Readable, sink: Writable): void {
  source.unpipe(sink);
  source.resume();
}

function feedResize(source: Readable | undefined, streams: ProcessStreams): void {
  if (source === undefined) return;
  source.on("error", () => undefined);
  source.on(
    "data",
    createSizeReader((size: TerminalSize) => streams.resize?.(size)),
  );
}
