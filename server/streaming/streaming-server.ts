import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import { isIPv6 } from "node:net";
import { Code, CriError, type cri, type Logger } from "../../cri-api/index.ts";
import type { StreamingBackend } from "./backend.ts";
import { createServer } from "./http.ts";
import { loadTlsOptions, type TlsFiles } from "./tls-files.ts";
import { createTokenStore } from "./tokens.ts";
import { createUpgrader, type PendingStream } from "./upgrade.ts";

/** Where the streaming server listens and how patient it is. */
export interface StreamingConfig {
  readonly address: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
  readonly tls?: TlsFiles;
  /** A connection over which no data moves for so long is closed; pings don't count. 4 h by custom, 0 for never. */
  readonly idleTimeoutMs: number;
  /** A client has so long to open its streams. 30 s by custom. */
  readonly streamCreationTimeoutMs: number;
  /**
   * An attached client shares its container's output with the log: one that does not read must not stop the container.
   * So much is kept for it; when it leaves that full for so long, it is dropped. 1 MiB and 2 s unless set.
   */
  readonly attachBuffer?: { readonly maxBufferedBytes: number; readonly maxStallMs: number };
  /** Connections served at once; the next one is answered 429 and may come again. 1000 unless set. */
  readonly maxSessions?: number;
}

/**
 * Issues URLs for Exec, Attach and PortForward and serves them over SPDY/3.1 and WebSocket. A URL works once, for a
 * minute. Closing it stops listening and breaks off every stream.
 */
export interface StreamingServer extends AsyncDisposable {
  /** @throws {CriError} `InvalidArgument` for a request no stream can serve, `ResourceExhausted` while 1000 wait. */
  execUrl(request: cri.ExecRequest): string;
  /** @throws {CriError} as {@link execUrl}. */
  attachUrl(request: cri.AttachRequest): string;
  /** @throws {CriError} as {@link execUrl}. */
  portForwardUrl(request: cri.PortForwardRequest): string;
}

const execPolicy = { maxBufferedBytes: 128 * 1024, maxStallMs: undefined };
const defaultAttachBuffer = { maxBufferedBytes: 1024 * 1024, maxStallMs: 2000 };
const defaultMaxSessions = 1000;
const certificateCheckMs = 60_000;
/** An HTTP client that has not finished its request by then is cut off. */
const requestTimeoutMs = 30_000;

/**
 * Listens.
 *
 * @throws the error of the system if the address is taken or a certificate cannot be read.
 */
export async function createStreamingServer(parts: {
  readonly config: StreamingConfig;
  readonly backend: StreamingBackend;
  readonly log: Logger;
}): Promise<StreamingServer> {
  const { config, backend, log } = parts;
  await using undo = new AsyncDisposableStack();
  const shutdown = new AbortController();
  const tokens = createTokenStore<PendingStream>();
  const attachPolicy = config.attachBuffer ?? defaultAttachBuffer;
  const upgrader = createUpgrader({
    tokens,
    backend,
    log,
    execPolicy,
    attachPolicy,
    shutdown: shutdown.signal,
    idleTimeoutMs: config.idleTimeoutMs,
    streamCreationTimeoutMs: config.streamCreationTimeoutMs,
    maxSessions: config.maxSessions ?? defaultMaxSessions,
  });

  const server = config.tls === undefined ? createServer() : await createReloadingServer(config.tls, log, undo);
  server.headersTimeout = requestTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  server.on("request", refusePlainRequest);
  server.on("upgrade", (request, socket, head) => upgrader.handle(request, socket, head));
  server.listen({ host: config.address, port: config.port });
  await once(server, "listening");
  server.on("error", (error) => log.warn({ err: error }, "a streaming connection was not accepted"));
  undo.defer(async () => {
    server.close();
    server.closeAllConnections();
    shutdown.abort(new CriError(Code.Unavailable, "streaming server is shutting down"));
    await upgrader.settled();
  });

  const base = baseUrl(server, config);
  log.info({ address: base }, "streaming server listens");
  const closing = undo.move();
  const issue = (pending: PendingStream): string => `${base}/${pending.kind}/${tokens.issue(pending)}`;
  return {
    execUrl: (request) => issue({ kind: "exec", request: checkStreams(request) }),
    attachUrl: (request) => issue({ kind: "attach", request: checkStreams(request) }),
    portForwardUrl({ podSandboxId, port }) {
      if (podSandboxId === "") throw new CriError(Code.InvalidArgument, "missing required pod_sandbox_id");
      return issue({ kind: "portforward", podSandboxId, ports: checkPorts(port) });
    },
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

function checkStreams<Request extends Omit<cri.ExecRequest, "cmd">>(request: Request): Request {
  if (request.containerId === "") throw new CriError(Code.InvalidArgument, "missing required container_id");
  if (request.tty && request.stderr) throw new CriError(Code.InvalidArgument, "tty and stderr cannot both be true");
  if (!request.stdin && !request.stdout && !request.stderr) {
    throw new CriError(Code.InvalidArgument, "one of stdin, stdout, or stderr must be set");
  }
  return request;
}

function checkPorts(ports: readonly number[]): readonly number[] {
  const wrong = ports.find((port) => port < 1 || port > 0xffff);
  if (wrong !== undefined) throw new CriError(Code.InvalidArgument, `port ${wrong} is not between 1 and 65535`);
  return ports;
}

function baseUrl(server: Server | TlsServer, config: StreamingConfig): string {
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : config.port;
  const host = isIPv6(config.address) ? `[${config.address}]` : config.address;
  return `${config.tls === undefined ? "http" : "https"}://${host}:${port}`;
}

function refusePlainRequest(_request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(400, { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
  response.end("upgrade request required\n");
}

/** Certificates are renewed under a running daemon: the files are looked at once a minute. */
async function createReloadingServer(files: TlsFiles, log: Logger, undo: AsyncDisposableStack): Promise<TlsServer> {
  const clientAuth = { requestCert: files.clientCaFile !== undefined, rejectUnauthorized: true };
  let current = await loadTlsOptions(files);
  const server = createTlsServer({ ...current, ...clientAuth });
  const reload = async (): Promise<void> => {
    try {
      const fresh = await loadTlsOptions(files);
      if (JSON.stringify(fresh) === JSON.stringify(current)) return;
      server.setSecureContext(fresh);
      current = fresh;
      log.info({ certFile: files.certFile }, "streaming certificate replaced");
    } catch (thrown) {
      log.warn({ err: thrown }, "streaming certificate could not be read again");
    }
  };
  const timer = setInterval(() => void reload(), certificateCheckMs);
  undo.defer(() => clearInterval(timer));
  return server;
}
