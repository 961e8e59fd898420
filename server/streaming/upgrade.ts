import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { WebSocket, WebSocketServer } from "ws";
import type { Logger } from "../../cri-api/index.ts";
import type { AttachStreamRequest, ExecStreamRequest, StreamingBackend } from "./backend.ts";
import { STATUS_CODES } from "./http.ts";
import type { OutputPolicy } from "./output-pump.ts";
import { servePortForwardChannels } from "./port-forward-websocket.ts";
import { servePortForward } from "./port-forward-spdy.ts";
import {
  negotiate,
  portForwardProtocol,
  readNames,
  spdyCommandProtocols,
  webSocketCommandProtocols,
  webSocketPortForwardProtocols,
} from "./protocols.ts";
import { type CommandChannels, runRemoteCommand } from "./remote-command.ts";
import { openSpdyChannels } from "./remote-command-spdy.ts";
import { openWebSocketChannels } from "./remote-command-websocket.ts";
import { createSession, type StreamSession, timerMs } from "./session.ts";
import type { TokenStore } from "./tokens.ts";
import { createTunnel } from "./websocket-tunnel.ts";

/** A request that waits for its client. */
export type PendingStream =
  | { readonly kind: "exec"; readonly request: ExecStreamRequest }
  | { readonly kind: "attach"; readonly request: AttachStreamRequest }
  | { readonly kind: "portforward"; readonly podSandboxId: string; readonly ports: readonly number[] };

export interface UpgradeParts {
  readonly tokens: TokenStore<PendingStream>;
  readonly backend: StreamingBackend;
  readonly log: Logger;
  readonly shutdown: AbortSignal;
  readonly idleTimeoutMs: number;
  readonly streamCreationTimeoutMs: number;
  readonly maxSessions: number;
  readonly execPolicy: OutputPolicy;
  readonly attachPolicy: OutputPolicy;
}

/** As Go's server: a client may send what it likes in one message, and Python's does. */
const maxMessageBytes = 32 * 1024 * 1024;
const rpcOf = { exec: "Exec", attach: "Attach", portforward: "PortForward" } as const;

/** Why a request is not upgraded, as HTTP says it. */
class Refusal extends Error {
  override readonly name = "Refusal";
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

interface Upgrader {
  readonly parts: UpgradeParts;
  /** The protocol chosen for a WebSocket whose handshake is under way. */
  readonly chosen: WeakMap<IncomingMessage, string>;
  readonly sessions: Set<Promise<unknown>>;
  webSocketServer: WebSocketServer | undefined;
}

/** Turns HTTP upgrade requests into streaming sessions, and lets them be waited for. */
export function createUpgrader(parts: UpgradeParts): {
  handle(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  settled(): Promise<void>;
} {
  const upgrader: Upgrader = { parts, chosen: new WeakMap(), sessions: new Set(), webSocketServer: undefined };
  return {
    handle(request, socket, head) {
      socket.on("error", () => undefined);
      const done = serve(upgrader, { request, socket, head })
        .then(() => socket.destroy())
        .catch((thrown: unknown) => {
          if (thrown instanceof Refusal) {
            refuse(socket, thrown);
          } else {
            parts.log.info({ err: thrown }, "streaming session broke off");
            socket.destroy();
          }
        })
        .finally(() => upgrader.sessions.delete(done));
      upgrader.sessions.add(done);
    },
    settled: async () => void (await Promise.all(upgrader.sessions)),
  };
}

async function serve(upgrader: Upgrader, upgrade: Upgrade): Promise<void> {
  const { parts } = upgrader;
  const target = /^\/(exec|attach|portforward)\/([\w-]+)(?:\?.*)?$/.exec(upgrade.request.url ?? "");
  if (target === null) throw new Refusal(404, "not found");
  if (upgrader.sessions.size >= parts.maxSessions) {
    throw new Refusal(429, "too many streams are open", { "Retry-After": "60" });
  }
  const pending = parts.tokens.redeem(target[2] ?? "");
  if (pending?.kind !== target[1] || pending === undefined) throw new Refusal(404, "not found");

  using session = createSession({ ...parts, rpc: rpcOf[pending.kind] });
  session.call.signal.addEventListener("abort", () => upgrade.socket.destroy(), { once: true });
  const protocol = upgrade.request.headers.upgrade?.toLowerCase() ?? "";
  if (protocol === "websocket") await serveWebSocket(upgrader, upgrade, session, pending);
  else if (protocol.includes("spdy/3.1")) await serveSpdy(parts, upgrade, session, pending);
  else throw new Refusal(400, "unable to upgrade: neither SPDY/3.1 nor WebSocket was asked for");
}

async function serveSpdy(
  parts: UpgradeParts,
  upgrade: Upgrade,
  session: StreamSession,
  pending: PendingStream,
): Promise<void> {
  const { request, socket, head } = upgrade;
  const offered = readNames(request.headers["x-stream-protocol-version"]);
  const isForward = pending.kind === "portforward";
  const supported = isForward ? [{ name: portForwardProtocol }] : spdyCommandProtocols;
  const protocol = negotiate(offered, supported, isForward ? portForwardProtocol : "channel.k8s.io");
  if (protocol === undefined) throw unsupported(offered, supported);

  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n` +
      `X-Stream-Protocol-Version: ${protocol.name}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
  if (pending.kind === "portforward") {
    await servePortForward(session, socket, parts.backend, { ...parts, podSandboxId: pending.podSandboxId });
    return;
  }
  const command = spdyCommandProtocols.find(({ name }) => name === protocol.name);
  if (command === undefined) return;
  const wanted = { ...pending.request, protocol: command };
  await runCommand(
    parts,
    session,
    pending,
    await openSpdyChannels(session, socket, wanted, parts.streamCreationTimeoutMs),
  );
}

async function serveWebSocket(
  upgrader: Upgrader,
  upgrade: Upgrade,
  session: StreamSession,
  pending: PendingStream,
): Promise<void> {
  const { parts } = upgrader;
  const offered = readNames(upgrade.request.headers["sec-websocket-protocol"]);
  if (pending.kind === "portforward") {
    const protocol = negotiate(offered, webSocketPortForwardProtocols, "channel.k8s.io");
    if (protocol === undefined) throw unsupported(offered, webSocketPortForwardProtocols);
    const { podSandboxId } = pending;
    const ports = pending.ports.length > 0 ? pending.ports : readPorts(upgrade.request.url ?? "");
    if (protocol.kind === "channels" && ports.length === 0)
      throw new Refusal(400, 'query parameter "port" is required');
    const socket = await acceptWebSocket(upgrader, upgrade, protocol.name);
    if (protocol.kind === "tunnel") {
      await servePortForward(session, createTunnel(socket), parts.backend, { ...parts, podSandboxId });
    } else {
      const { isBase64 } = protocol;
      await servePortForwardChannels(session, socket, parts.backend, { podSandboxId, ports, isBase64 });
    }
    return;
  }
  const protocol = negotiate(offered, webSocketCommandProtocols, "channel.k8s.io");
  if (protocol === undefined) throw unsupported(offered, webSocketCommandProtocols);
  const socket = await acceptWebSocket(upgrader, upgrade, protocol.name);
  await runCommand(parts, session, pending, openWebSocketChannels(session, socket, pending.request, protocol));
}

async function runCommand(
  parts: UpgradeParts,
  session: StreamSession,
  pending: Exclude<PendingStream, { kind: "portforward" }>,
  channels: CommandChannels,
): Promise<void> {
  const { backend } = parts;
  if (pending.kind === "exec") {
    await runRemoteCommand(session, channels, parts.execPolicy, (call) => backend.exec(call, pending.request));
  } else {
    await runRemoteCommand(session, channels, parts.attachPolicy, (call) => backend.attach(call, pending.request));
  }
}

function unsupported(offered: readonly string[], supported: readonly { readonly name: string }[]): Refusal {
  const names = supported.map(({ name }) => name).join(", ");
  const message = `unable to negotiate protocol: client supports ${offered.join(", ")}, server accepts ${names}`;
  return new Refusal(403, message, { "X-Accepted-Stream-Protocol-Versions": names });
}

/** Ports named in the URL, for clients that come without kubelet. */
function readPorts(url: string): readonly number[] {
  const query = new URLSearchParams(url.split("?")[1] ?? "");
  const ports = query.getAll("port").flatMap((text) => text.split(",").map(Number));
  return ports.every((port) => Number.isInteger(port) && port > 0 && port <= 0xffff) ? ports.slice(0, 100) : [];
}

async function acceptWebSocket(upgrader: Upgrader, upgrade: Upgrade, protocol: string): Promise<WebSocket> {
  upgrader.webSocketServer ??= await createWebSocketServer(upgrader);
  const server = upgrader.webSocketServer;
  const { promise, resolve, reject } = Promise.withResolvers<WebSocket>();
  const { request, socket, head } = upgrade;
  // `ws` would refuse the name of the tunnel, which has a slash: the header is answered past it.
  if (request.headers["sec-websocket-protocol"] !== undefined) upgrader.chosen.set(request, protocol);
  delete request.headers["sec-websocket-protocol"];
  socket.once("close", () => reject(new Error("WebSocket handshake failed")));
  server.handleUpgrade(request, socket, head, resolve);
  return promise;
}

/** Loaded at the first use: many nodes never see a WebSocket, since kubelet speaks SPDY to its runtime. */
async function createWebSocketServer({ parts, chosen }: Upgrader): Promise<WebSocketServer> {
  const { WebSocketServer } = await import("ws");
  const options = {
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    closeTimeout: timerMs(parts.idleTimeoutMs), // a slow client still reads what was sent before the goodbye; the idle clock watches it
  };
  const server = new WebSocketServer(options);
  server.on("headers", (headers, request) => {
    const protocol = chosen.get(request);
    if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
  });
  return server;
}

function refuse(socket: Duplex, { status, message, headers }: Refusal): void {
  const body = `${message}\n`;
  const lines = Object.entries({
    ...headers,
    Connection: "close",
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": String(Buffer.byteLength(body)),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join("")}\r\n${body}`, () => socket.destroy());
}
