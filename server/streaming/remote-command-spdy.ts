import type { Duplex } from "node:stream";
import { finished } from "node:stream/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import { untilAborted } from "../../native/index.ts";
import type { CommandProtocol } from "./protocols.ts";
import type { CommandChannels } from "./remote-command.ts";
import type { StreamSession } from "./session.ts";
import { createSpdyConnection, defaultSpdyLimits, type SpdyConnection } from "./spdy/connection.ts";
import { type CommandStatus, encodeStatus } from "./status.ts";

/** Which streams a command was asked to have. */
export interface WantedStreams {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

const streamTypes = ["error", "stdin", "stdout", "stderr", "resize"] as const;
type StreamType = (typeof streamTypes)[number];
type Streams = Map<StreamType, Duplex>;

function isStreamType(text: string | undefined): text is StreamType {
  return streamTypes.some((type) => type === text);
}

/**
 * Waits until the client has opened every stream of the command.
 *
 * @throws {CriError} `DeadlineExceeded` if it takes longer than `timeoutMs`.
 */
export async function openSpdyChannels(
  session: StreamSession,
  transport: Duplex,
  wanted: WantedStreams & { readonly protocol: CommandProtocol },
  timeoutMs: number,
): Promise<CommandChannels> {
  const missing = new Set<StreamType>(["error"]);
  for (const type of ["stdin", "stdout", "stderr"] as const) if (wanted[type]) missing.add(type);
  if (wanted.tty && wanted.protocol.hasResize) missing.add("resize");

  const { promise: complete, resolve, reject } = Promise.withResolvers<void>();
  const streams: Streams = new Map();
  const connection = createSpdyConnection({
    transport,
    limits: { ...defaultSpdyLimits, maxStreams: streamTypes.length },
    touch: () => session.touch(),
    accept: (_id, headers) => {
      const type = headers.get("streamtype");
      if (!isStreamType(type) || streams.has(type)) return undefined;
      return ({ duplex }) => {
        streams.set(type, duplex);
        missing.delete(type);
        if (type !== "stdin" && type !== "resize") duplex.resume(); // the client says nothing there but that it ends
        if (missing.size === 0) resolve();
      };
    },
  });
  watchPeer(session, connection);

  const timer = setTimeout(() => {
    reject(new CriError(Code.DeadlineExceeded, "timed out waiting for client to create streams"));
  }, timeoutMs);
  try {
    await untilAborted(complete, session.call.signal);
  } finally {
    clearTimeout(timer);
  }
  return toChannels(connection, streams, wanted.protocol.hasJsonStatus);
}

const probeIntervalMs = 5000;

/** Ends the session with the connection, and finds out if the peer vanishes while it is not read. */
export function watchPeer(session: StreamSession, connection: SpdyConnection): void {
  const probe = setInterval(() => connection.probe(), probeIntervalMs);
  void connection.closed.then((cause) => {
    clearInterval(probe);
    session.end(cause ?? new Error("client has disconnected"));
  });
}

function toChannels(connection: SpdyConnection, streams: Streams, isJson: boolean): CommandChannels {
  return {
    stdin: streams.get("stdin"),
    stdout: streams.get("stdout"),
    stderr: streams.get("stderr"),
    resize: streams.get("resize"),
    async finish(status: CommandStatus) {
      const bytes = encodeStatus(status, isJson);
      if (bytes.length > 0) streams.get("error")?.write(bytes);
      for (const stream of streams.values()) stream.end();
      // Each is over when its last byte is on its way; one that the client reset has nothing to wait for.
      await Promise.allSettled([...streams.values()].map((stream) => finished(stream, { readable: false })));
      connection.close();
      await connection.closed;
    },
  };
}
