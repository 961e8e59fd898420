import { Duplex } from "node:stream";
import { createPieceQueue, readHighWaterMark } from "../piece-queue.ts";
import type { SpdyHeaders } from "./header-block.ts";
import type { ResetStatus } from "./spdy-error.ts";

const writeHighWaterBytes = 32 * 1024;

/** A stream the peer opened. Destroying `duplex` before both sides ended resets the stream. */
export interface SpdyStream {
  readonly id: number;
  readonly headers: SpdyHeaders;
  readonly duplex: Duplex;
}

/** What a stream asks of its connection. */
export interface StreamPort {
  send(bytes: Buffer, done: () => void): void;
  sendFin(done: () => void): void;
  sendReset(status: ResetStatus): void;
  /** A piece left our queue for the reader. */
  taken(piece: Buffer): void;
  /** Pieces were thrown away. */
  dropped(pieces: readonly Buffer[]): void;
  closed(): void;
}

/** The connection's side of a stream. */
export interface StreamEnd {
  readonly stream: SpdyStream;
  receive(piece: Buffer): void;
  receiveFin(): void;
  receiveReset(): void;
  /** The connection is gone: nothing can be sent any more. */
  abandon(cause: Error): void;
}

/** A stream as a Node duplex; what arrives is queued until it is read, and the connection counts it. */
export function createStream(id: number, headers: SpdyHeaders, port: StreamPort): StreamEnd {
  let hasEnded = false;
  let isSilent = false;
  const queue = createPieceQueue(
    (piece) => duplex.push(piece),
    (piece) => port.taken(piece),
  );

  const duplex = new Duplex({
    readableHighWaterMark: readHighWaterMark,
    writableHighWaterMark: writeHighWaterBytes,
    read: () => queue.want(),
    write(chunk: Buffer, _encoding, callback) {
      port.send(chunk, callback);
    },
    final(callback) {
      hasEnded = true;
      port.sendFin(callback);
    },
    destroy(error, callback) {
      if (!isSilent && !(hasEnded && queue.hasEnded)) port.sendReset(error === null ? "CANCEL" : "INTERNAL_ERROR");
      port.dropped(queue.clear());
      port.closed();
      callback(error);
    },
  });
  duplex.on("error", () => undefined); // whoever uses the stream listens too; nobody may bring the process down

  const silence = (cause: Error): void => {
    isSilent = true;
    duplex.destroy(cause);
  };

  return {
    stream: { id, headers, duplex },
    receive(piece) {
      if (queue.hasEnded || duplex.destroyed) port.dropped([piece]);
      else queue.receive(piece);
    },
    receiveFin: () => queue.end(),
    receiveReset: () => silence(new Error("stream reset by the peer")),
    abandon: silence,
  };
}
