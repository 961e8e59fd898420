import { once } from "node:events";
import { PassThrough, type Readable } from "node:stream";
import { createWebSocketStream, WebSocket } from "ws";
import { connectSpdy, type SpdyConnection, type SpdyStream } from "./spdy.ts";

/** What an exec or attach was asked to have. */
export interface WantedStreams {
  readonly stdin?: boolean;
  readonly stdout?: boolean;
  readonly stderr?: boolean;
  readonly tty?: boolean;
}

/** The client's side of an exec or attach. */
export interface CommandClient {
  /** Unread output stops the whole connection. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  write(bytes: Buffer | string): Promise<void>;
  endInput(): void;
  resize(size: { readonly Width: number; readonly Height: number }): void;
  /** What the error stream says of the end, as JSON. Rejects when the connection breaks off. */
  readonly status: Promise<CommandStatus>;
  /** Breaks off, as a client that dies. */
  destroy(): void;
}

export interface CommandStatus {
  readonly status: string;
  readonly message: string;
  readonly details?: { readonly causes?: readonly { readonly message: string }[] };
}

export type Transport = "SPDY" | "WebSocket";

export async function connectCommand(transport: Transport, url: string, wanted: WantedStreams): Promise<CommandClient> {
  return transport === "SPDY" ? await commandOverSpdy(url, wanted) : await commandOverWebSocket(url);
}

/** The exit code that a status tells. */
export function exitCodeOf(status: CommandStatus): number {
  if (status.status === "Success") return 0;
  const code = Number(status.details?.causes?.[0]?.message);
  if (!Number.isInteger(code)) throw new Error(`no exit code: ${status.message}`);
  return code;
}

export async function readText(stream: Readable): Promise<string> {
  return Buffer.concat(await stream.toArray()).toString();
}

async function commandOverSpdy(url: string, wanted: WantedStreams): Promise<CommandClient> {
  const connection = await connectSpdy(url, ["v4.channel.k8s.io"]);
  const open = (streamtype: string): SpdyStream => connection.open({ streamtype });
  const error = open("error");
  const stdin = wanted.stdin === true ? open("stdin") : undefined;
  const stdout = wanted.stdout === true ? open("stdout") : undefined;
  const stderr = wanted.stderr === true ? open("stderr") : undefined;
  const resize = wanted.tty === true ? open("resize") : undefined;
  const status = readText(error.output).then(parseStatus);
  status.catch(() => undefined);
  return {
    stdout: stdout?.output ?? emptyStream(),
    stderr: stderr?.output ?? emptyStream(),
    write: async (bytes) => await stdin?.write(bytes),
    endInput: () => stdin?.end(),
    resize: (size) => void resize?.write(JSON.stringify(size)),
    status,
    destroy: () => connection.destroy(),
  };
}

const channels = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 };

async function commandOverWebSocket(url: string): Promise<CommandClient> {
  const socket = new WebSocket(url.replace(/^http/u, "ws"), ["v5.channel.k8s.io"]);
  await once(socket, "open");
  const [stdout, stderr, error] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const outputs: ReadonlyMap<number, PassThrough> = new Map([
    [channels.stdout, stdout],
    [channels.stderr, stderr],
    [channels.error, error],
  ]);
  for (const output of outputs.values()) output.on("error", () => undefined); // told to who reads
  const transport = createWebSocketStream(socket, { readableObjectMode: true });
  transport.on("error", () => undefined);
  transport.on("data", (message: Buffer) => {
    const output = outputs.get(message[0] ?? -1);
    if (output !== undefined && !output.write(message.subarray(1))) {
      transport.pause();
      output.once("drain", () => transport.resume());
    }
  });
  socket.on("close", (code) => {
    for (const output of outputs.values()) {
      if (code === 1000) output.end();
      else output.destroy(new Error(`connection ended with ${code}`));
    }
  });
  const send = (channel: number, bytes: Buffer | string): Promise<void> =>
    new Promise((resolve, reject) => {
      const message = Buffer.concat([Buffer.from([channel]), Buffer.from(bytes)]);
      transport.write(message, (failure) => (failure ? reject(failure) : resolve()));
    });
  const status = readText(error).then(parseStatus);
  status.catch(() => undefined);
  return {
    stdout,
    stderr,
    write: (bytes) => send(channels.stdin, bytes),
    endInput: () => void send(channels.close, Buffer.from([channels.stdin])).catch(() => undefined),
    resize: (size) => void send(channels.resize, JSON.stringify(size)).catch(() => undefined),
    status,
    destroy: () => socket.terminate(),
  };
}

function parseStatus(text: string): CommandStatus {
  return JSON.parse(text) as CommandStatus;
}

function emptyStream(): Readable {
  const stream = new PassThrough();
  stream.end();
  return stream;
}

/** A forwarded connection: its data, and what went wrong with it, "" for nothing. */
export interface ForwardedConnection {
  readonly data: SpdyStream;
  readonly failure: Promise<string>;
}

/** The client's side of a port-forward; every connection to a port is a pair of streams. */
export interface PortForwardClient {
  connect(port: number): ForwardedConnection;
  destroy(): void;
}

export async function connectPortForward(url: string): Promise<PortForwardClient> {
  const connection: SpdyConnection = await connectSpdy(url, ["portforward.k8s.io"]);
  let nextRequest = 0;
  return {
    connect(port) {
      const headers = { port: String(port), requestid: String(nextRequest++) };
      const error = connection.open({ streamtype: "error", ...headers });
      error.end();
      const failure = readText(error.output);
      failure.catch(() => undefined);
      return { data: connection.open({ streamtype: "data", ...headers }), failure };
    },
    destroy: () => connection.destroy(),
  };
}
