import { request as httpRequest } from "node:http";
import { type Duplex, PassThrough, type Readable } from "node:stream";

/** One stream of a SPDY connection, as its client sees it. */
export interface SpdyStream {
  /** What the server sent; ends with its FIN, fails with a reset or the end of the connection. Unread, it stops the connection. */
  readonly output: Readable;
  /** Resolves when the connection has taken the bytes. */
  write(bytes: Buffer | string): Promise<void>;
  end(): void;
}

/** A client's SPDY/3.1 connection. */
export interface SpdyConnection {
  readonly protocol: string | undefined;
  open(headers: Readonly<Record<string, string>>): SpdyStream;
  /** Breaks it off, as a client that dies. */
  destroy(): void;
}

const frame = { synStream: 0x8003_0001, resetStream: 0x8003_0003, ping: 0x8003_0006 } as const;
const fin = 1;
/** zlib's header that names SPDY's dictionary by its checksum. Blocks that are stored need nothing out of it. */
const zlibHeader = Buffer.from("78bbe3c6a7c2", "hex");

/** Upgrades an HTTP request to SPDY/3.1, offering protocols as kubelet does. */
export async function connectSpdy(url: string, protocols: readonly string[]): Promise<SpdyConnection> {
  const request = httpRequest(url, {
    method: "POST",
    headers: { Connection: "Upgrade", Upgrade: "SPDY/3.1", "X-Stream-Protocol-Version": [...protocols] },
  });
  const { promise, resolve, reject } = Promise.withResolvers<SpdyConnection>();
  request.on("error", reject);
  request.on("response", ({ statusCode }) => reject(new Error(`answered ${statusCode} instead of upgrading`)));
  request.on("upgrade", (response, socket, head) => {
    const protocol = response.headers["x-stream-protocol-version"];
    resolve({ protocol: typeof protocol === "string" ? protocol : undefined, ...speak(socket, head) });
  });
  request.end();
  return await promise;
}

function speak(socket: Duplex, head: Buffer): Omit<SpdyConnection, "protocol"> {
  const outputs = new Map<number, PassThrough>();
  const send = (bytes: Buffer): Promise<void> =>
    new Promise((resolve, reject) => void socket.write(bytes, (error) => (error ? reject(error) : resolve())));
  let nextId = 1;

  const receive = createReader((word, flags, payload) => {
    if (word === frame.ping) void send(control(word, 0, payload)).catch(() => undefined);
    if (word === frame.resetStream) outputs.get(payload.readUInt32BE(0))?.destroy(new Error("stream was reset"));
    const output = outputs.get(word);
    if (output !== undefined && payload.length > 0 && !output.write(payload)) {
      socket.pause();
      output.once("drain", () => socket.resume());
    }
    if ((flags & fin) !== 0) output?.end();
  });
  socket.on("data", receive);
  socket.on("error", () => undefined);
  socket.on("close", () => {
    for (const output of outputs.values()) if (!output.writableEnded) output.destroy(new Error("connection has ended"));
  });
  if (head.length > 0) socket.unshift(head);

  return {
    open(headers) {
      const id = nextId;
      nextId += 2;
      const output = new PassThrough();
      output.on("error", () => undefined); // told to who reads
      outputs.set(id, output);
      const ids = Buffer.alloc(10);
      ids.writeUInt32BE(id);
      const block = [...(id === 1 ? [zlibHeader] : []), storedBlock(encodeHeaders(headers))];
      void send(control(frame.synStream, 0, Buffer.concat([ids, ...block]))).catch(() => undefined);
      return {
        output,
        write: (bytes) => send(dataFrame(id, 0, Buffer.from(bytes))),
        end: () => void send(dataFrame(id, fin, Buffer.alloc(0))).catch(() => undefined),
      };
    },
    destroy: () => void socket.destroy(),
  };
}

/** Cuts what arrives into frames: first word, flags, payload. */
function createReader(onFrame: (word: number, flags: number, payload: Buffer) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 8) {
      const end = 8 + rest.readUIntBE(5, 3);
      if (rest.length < end) return;
      onFrame(rest.readUInt32BE(0), rest.readUInt8(4), rest.subarray(8, end));
      rest = rest.subarray(end);
    }
  };
}

function control(word: number, flags: number, payload: Buffer): Buffer {
  return Buffer.concat([frameHead(word, flags, payload.length), payload]);
}

function dataFrame(id: number, flags: number, payload: Buffer): Buffer {
  return Buffer.concat([frameHead(id, flags, payload.length), payload]);
}

function frameHead(word: number, flags: number, length: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(word);
  head.writeUInt8(flags, 4);
  head.writeUIntBE(length, 5, 3);
  return head;
}

function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(headers);
  const lengthOf = (number: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(number);
    return bytes;
  };
  const texts = entries.flat().flatMap((text) => [lengthOf(Buffer.byteLength(text)), Buffer.from(text)]);
  return Buffer.concat([lengthOf(entries.length), ...texts]);
}

/** One block of a deflate stream that goes on after it. */
function storedBlock(bytes: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt16LE(bytes.length, 1);
  head.writeUInt16LE(~bytes.length & 0xffff, 3);
  return Buffer.concat([head, bytes]);
}
