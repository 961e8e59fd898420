import type { Socket } from "node:net";
import { join } from "node:path";
import { addAbortSignal } from "node:stream";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Child, ProcessIdentity } from "../../native/index.ts";
import { processIdentity, readFileBounded, spawn, untilAborted } from "../../native/index.ts";
import { parseJson } from "./state.ts";

/** Our ends of what a conmon that starts up talks through. */
export interface ConmonPipes {
  readonly child: Child;
  /** What it has written to standard error so far. */
  said(): string;
  readonly sync: Socket;
  readonly start: Socket;
}

interface ConmonCommand {
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

export interface ConmonConfig {
  readonly path: string;
  readonly runtimePath: string;
  readonly runtimeArguments: readonly string[];
  readonly usesSystemdCgroups: boolean;
  readonly exitDirectory: string;
  readonly env: Readonly<Record<string, string>>;
}

const maxHandshakeBytes = 64 * 1024;
const maxPidFileBytes = 32;
/** In the bundle; conmon writes it before the process that we started ends. */
export const pidFile = "conmon.pid";

/** Starts one below its own session and hands it to `talk` with its pipes. Where that fails, the caller ends it. */
export async function withConmon<T>(
  command: ConmonCommand,
  signal: AbortSignal,
  talk: (pipes: ConmonPipes) => Promise<T>,
): Promise<T> {
  signal.throwIfAborted();
  const { argv, env, cwd } = command;
  const child = await spawn({
    argv,
    cwd,
    env: { ...env, _OCI_SYNCPIPE: "3", _OCI_STARTPIPE: "4" },
    stdio: ["null", "null", "pipe-write", "socket", "socket"],
    session: true,
  });
  const [, , complaints, sync, start] = child.stdio;
  try {
    if (!complaints || !sync || !start) throw new CriError(Code.Internal, "the monitor's pipes are missing");
    start.on("error", () => undefined); // EPIPE if it failed at once: the silence on `sync` tells
    return await talk({ child, said: collectComplaints(complaints), sync, start });
  } catch (thrown) {
    signal.throwIfAborted();
    throw thrown;
  } finally {
    for (const pipe of child.stdio) pipe?.destroy();
  }
}

/** What conmon says on `sync` once the runtime is done; its complaints where it says nothing. */
export async function hearHandshake(pipes: ConmonPipes, signal: AbortSignal): Promise<Handshake> {
  const { child, sync } = pipes;
  const line = await readFirstLine(sync, signal);
  if (line === undefined) sync.destroy(); // it may have more to say than anybody wants to hear
  // The one that forked the real monitor and wrote its pid ends at once; a wrapper that stays is given up.
  await untilAborted(child.exited, signal);
  const told = line === undefined ? { pid: -1, message: "" } : parseHandshake(line);
  return told.pid > 0 || told.message !== "" ? told : { pid: -1, message: pipes.said() };
}

export interface Handshake {
  readonly pid: number;
  readonly message: string;
}

const handshakeSchema = v.object({
  pid: v.optional(v.pipe(v.number(), v.integer())),
  message: v.optional(v.string()),
});

/** conmon's one line: `{"pid": 42}`, `{"pid": -1, "message": "…"}`. */
export function parseHandshake(line: string): Handshake {
  const parsed = v.safeParse(handshakeSchema, parseJson(line));
  if (!parsed.success) return { pid: -1, message: "the monitor's answer cannot be read" };
  return { pid: parsed.output.pid ?? -1, message: parsed.output.message ?? "" };
}

/** Undefined when the other side closes without one, or with one that is too long. */
async function readFirstLine(socket: Socket, signal: AbortSignal): Promise<string | undefined> {
  addAbortSignal(signal, socket);
  let text = "";
  for await (const chunk of socket) {
    text += String(chunk);
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
    if (text.length > maxHandshakeBytes) return undefined;
  }
  return undefined;
}

/** The pipe stays open in what conmon starts, so its end is not waited for. */
function collectComplaints(socket: Socket): () => string {
  let text = "";
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => {
    if (text.length < maxHandshakeBytes) text += chunk.toString("utf8");
  });
  return () => text;
}

export async function monitorOf(bundle: string): Promise<ProcessIdentity | undefined> {
  const text = await readFileBounded(join(bundle, pidFile), maxPidFileBytes);
  const pid = Number(text?.toString("latin1").trim() || Number.NaN);
  return Number.isInteger(pid) && pid > 1 ? await processIdentity(pid) : undefined;
}
