import { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";
import { createPieceQueue, type PieceQueue, readHighWaterMark } from "./piece-queue.ts";
import { costOf, createValve } from "./valve.ts";

/** Received and not yet read; beyond it we stop reading from the peer. */
const maxHeldBytes = 1024 * 1024;
/** Sent and not yet taken by the socket; beyond it writers wait. */
const maxUnsentBytes = 256 * 1024;
const writeHighWaterBytes = 32 * 1024;
const probeIntervalMs = 5000;
const closeSignal = 255;
const zeroDigit = 0x30;
const normalClosure = 1000;
const protocolError = 1002;

export interface ChannelFormat {
  readonly isBase64: boolean;
  readonly hasCloseSignal: boolean;
}

/** Numbered byte streams over one WebSocket. */
export interface ChannelSocket {
  /** The stream of a channel, made at the first call. Its end is the peer's half-close; ending it sends nothing. */
  channel(number: number): Duplex;
  /** Resolves when the socket is gone. */
  readonly closed: Promise<void>;
  /** Says goodbye after everything sent so far. */
  close(): void;
}

/**
 * Splits a WebSocket into channels: the first byte of a message is its channel's number, or, in base64, its digit.
 * Messages to channels nobody made are thrown away.
 *
 * @param touch Called whenever data moves.
 */
export function createChannelSocket(socket: WebSocket, format: ChannelFormat, touch: () => void): ChannelSocket {
  const channels = new Map<number, Channel>();
  const valve = createValve(socket, [maxHeldBytes]);
  const probe = setInterval(() => {
    if (valve.isShut) socket.ping();
  }, probeIntervalMs);
  const { promise: closed, resolve } = Promise.withResolvers<void>();

  socket.on("error", () => socket.terminate());
  socket.on("close", () => {
    clearInterval(probe);
    for (const { duplex } of channels.values()) duplex.destroy(new Error("connection closed"));
    resolve();
  });
  socket.on("message", (data) => {
    touch();
    const message = toBuffer(data);
    if (format.hasCloseSignal && message[0] === closeSignal) {
      const inbox = channels.get(message[1] ?? closeSignal)?.inbox;
      if (message.length === 2 && inbox !== undefined) inbox.end();
      else socket.close(protocolError);
      return;
    }
    const inbox = channels.get((message[0] ?? closeSignal) - (format.isBase64 ? zeroDigit : 0))?.inbox;
    const piece = readBody(message, format);
    if (inbox === undefined || inbox.hasEnded || piece.length === 0) return;
    valve.add(0, costOf([piece]));
    inbox.receive(piece);
  });

  const open = (number: number): Duplex => {
    const channel = openChannel(
      (chunk, callback) => {
        touch();
        sendMessage(socket, writeMessage(number, chunk, format), callback);
      },
      (pieces) => valve.add(0, -costOf(pieces)),
    );
    channels.set(number, channel);
    return channel.duplex;
  };
  return {
    channel: (number) => channels.get(number)?.duplex ?? open(number),
    closed,
    close: () => socket.close(normalClosure),
  };
}

interface Channel {
  readonly duplex: Duplex;
  readonly inbox: PieceQueue;
}

function openChannel(
  send: (chunk: Buffer, callback: (error?: Error | null) => void) => void,
  released: (pieces: readonly Buffer[]) => void,
): Channel {
  const inbox = createPieceQueue(
    (piece) => duplex.push(piece),
    (piece) => released([piece]),
  );
  const duplex = new Duplex({
    readableHighWaterMark: readHighWaterMark,
    writableHighWaterMark: writeHighWaterBytes,
    read: () => inbox.want(),
    write: (chunk: Buffer, _encoding, callback) => send(chunk, callback),
    destroy(error, callback) {
      inbox.end(); // what still comes is thrown away
      released(inbox.clear());
      callback(error);
    },
  });
  duplex.on("error", () => undefined); // whoever uses the channel listens too
  return { duplex, inbox };
}

function readBody(message: Buffer, format: ChannelFormat): Buffer {
  const body = message.subarray(1);
  return format.isBase64 ? Buffer.from(body.toString("latin1"), "base64") : body;
}

function writeMessage(number: number, chunk: Buffer, format: ChannelFormat): Buffer | string {
  if (format.isBase64) return `${String.fromCharCode(zeroDigit + number)}${chunk.toString("base64")}`;
  return Buffer.concat([Buffer.from([number]), chunk]);
}

/** Calls back at once while little is on its way, else when the socket has taken the message. */
function sendMessage(socket: WebSocket, message: Buffer | string, callback: (error?: Error | null) => void): void {
  const isSoon = socket.bufferedAmount < maxUnsentBytes;
  socket.send(message, (error) => {
    if (!isSoon) callback(error);
  });
  if (isSoon) callback();
}

function toBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}
