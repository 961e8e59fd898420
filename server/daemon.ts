import { dirname } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Server } from "@grpc/grpc-js";
import { Code, CriError, loadServices } from "../cri-api/index.ts";
import type { Logger } from "../cri-api/index.ts";
import { createCalls } from "./calls.ts";
import type { Calls } from "./calls.ts";
import { createGrpcServer } from "./grpc-server.ts";
import type { HandlerTable } from "./handlers.ts";
import { listenOnSocket, makePassage, refuseLiveListener } from "./listener.ts";
import { createRedactor } from "./redact.ts";

/** How long calls in flight may go on after SIGTERM before their signals abort. */
export const defaultGraceMs = 10_000;
/** How long they may take to notice that, and then their answers to leave. */
const unwindMs = 2000;
const flushMs = 1000;

/** The rooms behind the socket. Disposed in the reverse order of their making; containers stay. */
export interface Rooms extends AsyncDisposable {
  readonly handlers: HandlerTable;
  /** Told of each RPC as it ends. */
  readonly onRpcDone?: ((rpc: string, code: Code, seconds: number) => void) | undefined;
}

export interface DaemonParts {
  readonly socket: string;
  /** Directories whose paths no client shall see in an error. */
  readonly privateDirectories: readonly string[];
  readonly log: Logger;
  /** Called once the socket is known to be free, before anything listens on it. */
  readonly openRooms: () => Promise<Rooms>;
  readonly graceMs?: number;
}

/** A daemon that answers on its socket until it is stopped. */
export interface Daemon {
  /** Stops accepting, lets calls end within the grace time, aborts the rest, disposes the rooms. Idempotent. */
  stop(): Promise<void>;
}

/** Whether the work ended in time; leaves no timer behind. */
async function endsWithin(work: Promise<unknown>, limitMs: number): Promise<boolean> {
  const timer = new AbortController();
  const late = setTimeout(limitMs, false, { signal: timer.signal }).catch(() => false);
  const inTime = await Promise.race([work.then(() => true), late]);
  timer.abort();
  return inTime;
}

async function stopServing(server: Server, calls: Calls, parts: DaemonParts): Promise<void> {
  const reason = new CriError(Code.Unavailable, "Berth is shutting down");
  const closed = Promise.withResolvers<void>();
  server.tryShutdown(() => closed.resolve());
  calls.abort("streams", reason);
  if (!(await endsWithin(calls.settled(), parts.graceMs ?? defaultGraceMs))) {
    parts.log.warn({}, "grace time is over, aborting the calls in flight");
    calls.abort("all", reason);
    if (!(await endsWithin(calls.settled(), unwindMs))) parts.log.error({}, "calls in flight ignored their abort");
  }
  await endsWithin(closed.promise, flushMs);
  server.forceShutdown(); // clients that keep their connection, and calls that never ended
}

/**
 * Opens the rooms and listens.
 *
 * @throws {Error} where the socket is taken, or a room does not open; what was opened is disposed again.
 */
export async function startDaemon(parts: DaemonParts): Promise<Daemon> {
  const { socket, log } = parts;
  await using undo = new AsyncDisposableStack();
  await makePassage(dirname(socket));
  await refuseLiveListener(socket); // before the rooms touch anything that a running daemon owns

  const rooms = undo.use(await parts.openRooms());
  const calls = createCalls({ log, redact: createRedactor(parts.privateDirectories), onDone: rooms.onRpcDone });
  const server = createGrpcServer(loadServices(), rooms.handlers, calls);
  undo.defer(() => stopServing(server, calls, parts));

  const listener = await listenOnSocket(server, socket);
  undo.defer(() => listener.close());
  log.info({ socket }, "listening");

  const open = undo.move();
  let stopped: Promise<void> | undefined;
  return {
    stop() {
      stopped ??= open.disposeAsync();
      return stopped;
    },
  };
}
