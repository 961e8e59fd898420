import type { Duplex } from "node:stream";
import type { StreamingBackend } from "./backend.ts";
import { forwardConnection } from "./port-forward.ts";
import { watchPeer } from "./remote-command-spdy.ts";
import type { StreamSession } from "./session.ts";
import { createSpdyConnection, defaultSpdyLimits } from "./spdy/connection.ts";
import type { SpdyHeaders } from "./spdy/header-block.ts";

interface Pair {
  data?: Duplex;
  error?: Duplex;
  readonly port: number;
  readonly timer: NodeJS.Timeout;
}

interface StreamKey {
  readonly port: number;
  readonly kind: "data" | "error";
  readonly requestId: string;
}

/** Connections under way at once over one client connection; a pair of streams each. */
const maxForwards = defaultSpdyLimits.maxStreams / 2;

/** Forwards every pair of streams the client opens, until the client closes the connection. */
export async function servePortForward(
  session: StreamSession,
  transport: Duplex,
  backend: StreamingBackend,
  request: { readonly podSandboxId: string; readonly streamCreationTimeoutMs: number },
): Promise<void> {
  const pairs = new Map<string, Pair>();
  const forwards = new Set<Promise<void>>();

  const openPair = (requestId: string, port: number): Pair => {
    const timer = setTimeout(() => {
      pairs.delete(requestId);
      pair.error?.end("timed out waiting for streams");
      pair.data?.destroy();
    }, request.streamCreationTimeoutMs);
    const pair: Pair = { port, timer };
    pairs.set(requestId, pair);
    return pair;
  };
  const take = (key: StreamKey, duplex: Duplex): void => {
    const pair = pairs.get(key.requestId) ?? openPair(key.requestId, key.port);
    pair[key.kind] = duplex;
    const { data, error } = pair;
    if (data === undefined || error === undefined) return;
    clearTimeout(pair.timer);
    pairs.delete(key.requestId);
    const connection = { podSandboxId: request.podSandboxId, port: pair.port, data, error };
    const forward = forwardConnection(session, backend, connection).finally(() => forwards.delete(forward));
    forwards.add(forward);
  };

  const connection = createSpdyConnection({
    transport,
    limits: defaultSpdyLimits,
    touch: () => session.touch(),
    accept: (id, headers) => {
      const key = readKey(id, headers);
      if (key === undefined || pairs.get(key.requestId)?.[key.kind] !== undefined) return undefined;
      if (forwards.size + pairs.size >= maxForwards && !pairs.has(key.requestId)) return undefined;
      return ({ duplex }) => take(key, duplex);
    },
  });
  watchPeer(session, connection);
  await connection.closed;
  for (const { timer } of pairs.values()) clearTimeout(timer);
  await Promise.allSettled(forwards);
}

function readKey(id: number, headers: SpdyHeaders): StreamKey | undefined {
  const port = Number(headers.get("port"));
  const kind = headers.get("streamtype");
  if (!Number.isInteger(port) || port < 1 || port > 0xffff) return undefined;
  if (kind !== "data" && kind !== "error") return undefined;
  // Old clients send no request id, and open the error stream right before its data stream.
  const requestId = headers.get("requestid") ?? `stream ${kind === "error" ? id : id - 2}`;
  return { port, kind, requestId };
}
