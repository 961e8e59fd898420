import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import { type Duplex, PassThrough, type Readable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { constants, createDeflate, createInflate } from "node:zlib";
import { WebSocket } from "ws";
import type { Logger } from "../../cri-api/index.ts";
import type { ProcessStreams, StreamingBackend, TerminalSize } from "./backend.ts";
import { headerDictionary } from "./spdy/dictionary.ts";
import { createFrameParser } from "./spdy/frame-parser.ts";
import {
  type ControlFrame,
  encodeDataHead,
  encodeGoaway,
  encodePing,
  encodeReset,
  encodeSynStream,
  encodeWindowUpdate,
} from "./spdy/frames.ts";
import { decodeHeaders, encodeHeaders } from "./spdy/header-block.ts";

/** A logger that keeps nothing. */
export const silentLog: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

/**
 * Compresses and inflates header blocks with node:zlib, so that ours is held against an independent one.
 * The flush may be the full one of Go and Chrome, or the partial one of old clients.
 */
export function createZlibHeaders(flush: number = constants.Z_SYNC_FLUSH): {
  readonly compress: (headers: ReadonlyMap<string, string>) => Promise<Buffer>;
  readonly inflate: (block: Buffer) => Promise<Buffer>;
} {
  const dictionary = headerDictionary();
  const deflate = createDeflate({ dictionary, level: 9, flush });
  const inflate = createInflate({ dictionary });
  const through = async (stream: typeof deflate | typeof inflate, bytes: Buffer): Promise<Buffer> => {
    const chunks: Buffer[] = [];
    const onData = (chunk: Buffer): void => void chunks.push(chunk);
    stream.on("data", onData);
    await new Promise<void>((resolve, reject) => {
      stream.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
    stream.off("data", onData);
    return Buffer.concat(chunks);
  };
  return {
    compress: (headers) => through(deflate, encodeHeaders(headers)),
    inflate: (block) => through(inflate, block),
  };
}

/** What a test sees of a stream it opened. */
export interface ClientStream {
  readonly id: number;
  /** What the server sent; ends with its FIN, fails with a reset or the connection. */
  readonly output: Readable;
  /** Resolves when the socket has taken the bytes. */
  write(bytes: Buffer | string, isFin?: boolean): Promise<void>;
  end(): void;
  reset(): void;
}

export interface SpdyClient {
  readonly protocol: string | undefined;
  readonly socket: Duplex;
  readonly frames: readonly ControlFrame[];
  open(headers: Readonly<Record<string, string>>): Promise<ClientStream>;
  ping(id: number): void;
  /** As Go's client leaves: GOAWAY, then the end of the connection. */
  close(): void;
  waitFor<Type extends ControlFrame["type"]>(type: Type): Promise<ControlFrame & { type: Type }>;
}

/** The answer of a server that did not upgrade. */
export class UpgradeRefused extends Error {
  override readonly name = "UpgradeRefused";
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  constructor(status: number, body: string, headers: Readonly<Record<string, unknown>>) {
    super(body.trim());
    this.status = status;
    this.headers = headers;
  }
}

/** Upgrades a connection as Go's clients do: by POST, with every protocol in a header of its own. */
export async function upgrade(
  url: string,
  protocols: readonly string[],
  options: object = {},
): Promise<{ socket: Socket; head: Buffer; protocol: string | undefined }> {
  const headers = { Connection: "Upgrade", Upgrade: "SPDY/3.1", "X-Stream-Protocol-Version": [...protocols] };
  const send = url.startsWith("https:") ? httpsRequest : httpRequest;
  const request = send(url, { method: "POST", headers, ...options });
  request.end();
  const { promise, resolve, reject } = Promise.withResolvers<{
    socket: Socket;
    head: Buffer;
    protocol: string | undefined;
  }>();
  request.on("error", reject);
  request.on("upgrade", (response, socket, head) => {
    const protocol = response.headers["x-stream-protocol-version"];
    resolve({ socket, head, protocol: typeof protocol === "string" ? protocol : undefined });
  });
  request.on("response", (response) => {
    void response.toArray().then((chunks: Buffer[]) => {
      reject(new UpgradeRefused(response.statusCode ?? 0, Buffer.concat(chunks).toString(), response.headers));
    });
  });
  return promise;
}

/** @param keepsWindows Answers data with WINDOW_UPDATE once it is read, as the protocol asks and Go does not. */
export async function connectSpdy(
  url: string,
  protocols: readonly string[] = ["v5.channel.k8s.io", "v4.channel.k8s.io"],
  options: { readonly keepsWindows?: boolean; readonly tls?: object } = {},
): Promise<SpdyClient> {
  const { socket, head, protocol } = await upgrade(url, protocols, options.tls);
  return { ...speakSpdy(socket, head, options.keepsWindows === true), protocol };
}

/** The client's side of SPDY/3.1 on an upgraded socket, or anything like one. */
export function speakSpdy(socket: Duplex, head: Buffer, keepsWindows: boolean): SpdyClient {
  const streams = new Map<number, PassThrough>();
  const frames: ControlFrame[] = [];
  const waiters = new Set<() => void>();
  const headers = createZlibHeaders();
  let work: Promise<unknown> = Promise.resolve();
  let nextId = 1;

  const parser = createFrameParser(1 << 20, {
    control(frame) {
      if ("headerBlock" in frame) {
        const block = Buffer.from(frame.headerBlock);
        const limits = { maxHeaders: 100, maxFieldBytes: 1000 };
        work = work.then(async () => decodeHeaders(await headers.inflate(block), limits));
      }
      frames.push(frame);
      if (frame.type === "RST_STREAM") streams.get(frame.streamId)?.destroy(new Error(`reset ${frame.status}`));
      for (const wake of waiters) wake();
    },
    data(streamId, piece, isFin) {
      const output = streams.get(streamId);
      if (output !== undefined && piece.length > 0 && !output.write(Buffer.from(piece))) {
        socket.pause();
        output.once("drain", () => socket.resume());
      }
      if (keepsWindows && piece.length > 0) {
        socket.write(encodeWindowUpdate(streamId, piece.length));
        socket.write(encodeWindowUpdate(0, piece.length));
      }
      if (isFin) output?.end();
    },
  });
  socket.on("data", (chunk: Buffer) => parser.push(chunk));
  socket.on("error", () => undefined);
  socket.on("close", () => {
    for (const output of streams.values()) if (!output.writableEnded) output.destroy(new Error("connection closed"));
    for (const wake of waiters) wake();
  });
  if (head.length > 0) parser.push(head);

  const waitUntil = async <Found>(find: () => Found | undefined): Promise<Found> => {
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      if (socket.destroyed) throw new Error("connection closed");
      await new Promise<void>((resolve) => waiters.add(resolve));
    }
  };
  const open: SpdyClient["open"] = async (fields) => {
    const id = nextId;
    nextId += 2;
    const output = new PassThrough();
    output.on("error", () => undefined);
    streams.set(id, output);
    const block = work.then(() => headers.compress(new Map(Object.entries(fields))));
    work = block.then((bytes) => socket.write(encodeSynStream(id, bytes)));
    await work;
    const answer = await waitUntil(() =>
      frames.find((frame) => (frame.type === "SYN_REPLY" || frame.type === "RST_STREAM") && frame.streamId === id),
    );
    if (answer.type === "RST_STREAM") throw new Error(`stream refused: ${answer.status}`);
    const write: ClientStream["write"] = async (bytes, isFin = false) => {
      const payload = Buffer.from(bytes);
      socket.write(encodeDataHead(id, payload.length, isFin));
      if (!socket.write(payload)) await once(socket, "drain");
    };
    return {
      id,
      output,
      write,
      end: () => void socket.write(encodeDataHead(id, 0, true)),
      reset: () => void socket.write(encodeReset(id, "CANCEL")),
    };
  };

  return {
    protocol: undefined,
    socket,
    frames,
    open,
    ping: (id) => void socket.write(encodePing(id)),
    close: () => void socket.end(encodeGoaway(0, "OK")),
    waitFor: <Type extends ControlFrame["type"]>(type: Type) =>
      waitUntil(() => frames.find((frame): frame is ControlFrame & { type: Type } => frame.type === type)),
  };
}

/**
 * A WebSocket under the name of the port-forward tunnel. `ws` would not send that name, since it has a slash, so the
 * handshake is done here and the socket handed to it.
 */
export async function connectTunnel(url: string): Promise<{ socket: WebSocket; protocol: string | undefined }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ socket: WebSocket; protocol: string | undefined }>();
  const request = httpRequest(url, {
    headers: {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
      "Sec-WebSocket-Protocol": "SPDY/3.1+portforward.k8s.io",
    },
  });
  request.on("error", reject);
  request.on("response", ({ statusCode }) => reject(new Error(`status ${statusCode}`)));
  request.on("upgrade", (response, raw, head) => {
    const socket = Reflect.construct(WebSocket, [
      null,
      undefined,
      { autoPong: true, closeTimeout: 30_000 },
    ]) as WebSocket;
    Reflect.set(socket, "_isServer", false);
    const setSocket: unknown = Reflect.get(socket, "setSocket");
    if (typeof setSocket !== "function") throw new Error("ws has changed inside");
    setSocket.call(socket, raw, head, { allowSynchronousEvents: true, maxPayload: 0, skipUTF8Validation: false });
    resolve({ socket, protocol: response.headers["sec-websocket-protocol"] });
  });
  request.end();
  return promise;
}

/** A process in memory: what it reads, what it writes, and when it exits is the test's decision. */
export interface FakeProcess extends ProcessStreams {
  readonly stdin: PassThrough;
  readonly stdout: PassThrough;
  readonly stderr: PassThrough;
  readonly sizes: TerminalSize[];
  exit(exitCode: number | undefined): void;
  readonly disposed: Promise<void>;
}

export function createFakeProcess(): FakeProcess {
  const { promise: exited, resolve } = Promise.withResolvers<{ exitCode: number } | undefined>();
  const { promise: disposed, resolve: resolveDisposed } = Promise.withResolvers<void>();
  const sizes: TerminalSize[] = [];
  return {
    stdin: new PassThrough(),
    stdout: new PassThrough(),
    stderr: new PassThrough(),
    sizes,
    resize: (size) => void sizes.push(size),
    exited,
    exit: (exitCode) => resolve(exitCode === undefined ? undefined : { exitCode }),
    disposed,
    async [Symbol.asyncDispose]() {
      resolveDisposed();
    },
  };
}

/** A backend whose every part fails unless the test gives it. */
export function createBackend(parts: Partial<StreamingBackend>): StreamingBackend {
  const missing = async (): Promise<never> => {
    throw new Error("not expected in this test");
  };
  return { exec: missing, attach: missing, portForward: missing, ...parts };
}

/** Bytes in use after a full collection, inside and outside the heap. */
export async function liveBytes(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  if (typeof collect !== "function") throw new Error("no garbage collector to call");
  collect();
  await new Promise<void>((resolve) => void setImmediate(resolve)); // lets what the loop still holds go
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

export async function readAll(stream: Readable): Promise<Buffer> {
  return Buffer.concat(await stream.toArray());
}
