import type { Duplex } from "node:stream";
import { costOf, createValve } from "../valve.ts";
import { dictionaryId, headerDictionary } from "./dictionary.ts";
import { createFrameParser } from "./frame-parser.ts";
import {
  type ControlFrame,
  defaultWindowBytes,
  encodeDataHead,
  encodeGoaway,
  encodePing,
  encodeReset,
  encodeSynReply,
  encodeWindowUpdate,
  settingInitialWindowSize,
} from "./frames.ts";
import { createHeaderWriter, decodeHeaders, type SpdyHeaders } from "./header-block.ts";
import { createInflater } from "./inflate.ts";
import { createSendQueue, type SendQueue } from "./send-queue.ts";
import { type GoawayStatus, SpdyError } from "./spdy-error.ts";
import { createStream, type SpdyStream, type StreamEnd, type StreamPort } from "./stream.ts";

/** What one connection may cost. */
export interface SpdyLimits {
  readonly maxControlFrameBytes: number;
  readonly maxHeaderBlockBytes: number;
  readonly maxHeaders: number;
  readonly maxFieldBytes: number;
  readonly maxStreams: number;
  /** Received and not yet read, over all streams; beyond it we stop reading from the peer. */
  readonly maxBufferedBytes: number;
  /** Answers the peer has not taken; beyond it we stop reading from the peer. */
  readonly maxUnsentControlBytes: number;
}

export const defaultSpdyLimits: SpdyLimits = {
  maxControlFrameBytes: 64 * 1024,
  maxHeaderBlockBytes: 64 * 1024,
  maxHeaders: 100,
  maxFieldBytes: 16 * 1024,
  maxStreams: 1024,
  maxBufferedBytes: 1024 * 1024,
  maxUnsentControlBytes: 64 * 1024,
};

/** Window updates are sent for this much at once. */
const creditBytes = defaultWindowBytes / 2;

export interface SpdyConnectionParts {
  readonly transport: Duplex;
  readonly limits: SpdyLimits;
  /** Decides on a new stream: undefined refuses it; otherwise the answer is sent and the stream handed to the taker. */
  readonly accept: (id: number, headers: SpdyHeaders) => ((stream: SpdyStream) => void) | undefined;
  /** Called for whatever counts as use of the connection: data and new streams, not pings. */
  readonly touch: () => void;
}

/** The server's side of a SPDY/3.1 connection. */
export interface SpdyConnection {
  /** Resolves when the transport is gone, with the reason if it was a broken protocol or transport. */
  readonly closed: Promise<Error | undefined>;
  /** Announces the end and closes the transport once everything is sent. */
  close(): void;
  /** While the peer is not read, writes a PING to it: that finds out if it has vanished. */
  probe(): void;
}

/** @see https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ */
export function createSpdyConnection(parts: SpdyConnectionParts): SpdyConnection {
  const { transport, limits } = parts;
  const streams = new Map<number, StreamEnd>();
  const writeHeaders = createHeaderWriter();
  const inflater = createInflater(headerDictionary(), dictionaryId, limits.maxHeaderBlockBytes);
  const wire = createWire(transport, limits);
  const queue = createSendQueue(transport, parts.touch);
  const session: Session = { parts, streams, wire, queue, inflater, writeHeaders, lastStreamId: 0, pingId: 0 };

  const { promise: closed, resolve: resolveClosed } = Promise.withResolvers<Error | undefined>();
  const finish = (cause: Error | undefined): void => {
    transport.destroy();
    for (const end of streams.values()) end.abandon(cause ?? new Error("connection closed"));
    resolveClosed(cause);
  };
  const fail = (status: GoawayStatus, cause: Error): void => {
    wire.control(encodeGoaway(session.lastStreamId, status));
    finish(cause);
  };

  const parser = createFrameParser(limits.maxControlFrameBytes, {
    control: (frame) => handleControl(session, frame),
    data: (streamId, piece, isFin) => handleData(session, streamId, piece, isFin),
  });
  transport.on("data", (chunk: Buffer) => {
    try {
      if (!transport.destroyed) parser.push(chunk);
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown));
      fail(thrown instanceof SpdyError ? thrown.status : "INTERNAL_ERROR", error);
    }
  });
  transport.on("error", (error) => finish(error));
  transport.on("end", () => finish(undefined));
  transport.on("close", () => finish(undefined));

  return {
    closed,
    close() {
      wire.control(encodeGoaway(session.lastStreamId, "OK"));
      transport.end();
    },
    probe() {
      if (!wire.isShut()) return;
      session.pingId = (session.pingId + 2) % 0x7fff_fffe;
      wire.control(encodePing(session.pingId === 0 ? 2 : session.pingId));
    },
  };
}

interface Session {
  readonly parts: SpdyConnectionParts;
  readonly streams: Map<number, StreamEnd>;
  readonly wire: Wire;
  readonly queue: SendQueue;
  readonly inflater: { inflate(block: Buffer): Buffer };
  readonly writeHeaders: ReturnType<typeof createHeaderWriter>;
  lastStreamId: number;
  pingId: number;
}

/** Control frames out, and the valve of what comes in. */
interface Wire {
  control(frame: Buffer): void;
  /** A piece came in and waits for its reader. */
  hold(piece: Buffer): void;
  /** Pieces were read or thrown away: the window of the session grows again. */
  release(pieces: readonly Buffer[]): void;
  /** True while the peer is not read. */
  isShut(): boolean;
}

const heldGauge = 0;
const unsentGauge = 1;

function createWire(transport: Duplex, limits: SpdyLimits): Wire {
  const valve = createValve(transport, [limits.maxBufferedBytes, limits.maxUnsentControlBytes]);
  let creditedBytes = 0;
  const control = (frame: Buffer): void => {
    if (transport.destroyed || transport.writableEnded) return;
    valve.add(unsentGauge, frame.length);
    transport.write(frame, () => valve.add(unsentGauge, -frame.length));
  };
  return {
    control,
    isShut: () => valve.isShut,
    hold: (piece) => valve.add(heldGauge, costOf([piece])),
    release(pieces) {
      creditedBytes += totalBytes(pieces);
      if (creditedBytes >= creditBytes) {
        control(encodeWindowUpdate(0, creditedBytes));
        creditedBytes = 0;
      }
      valve.add(heldGauge, -costOf(pieces));
    },
  };
}

function totalBytes(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

function handleData(session: Session, streamId: number, piece: Buffer, isFin: boolean): void {
  session.parts.touch();
  const end = session.streams.get(streamId);
  if (end === undefined && streamId > session.lastStreamId) {
    throw new SpdyError("PROTOCOL_ERROR", "data frame for a stream that was never opened");
  }
  if (piece.length > 0) {
    session.wire.hold(piece);
    if (end === undefined) session.wire.release([piece]);
    else end.receive(piece);
  }
  if (isFin) end?.receiveFin();
}

function handleControl(session: Session, frame: ControlFrame): void {
  switch (frame.type) {
    case "SYN_STREAM":
      openStream(session, frame);
      return;
    case "SYN_REPLY":
    case "HEADERS":
      readHeaders(session, frame.headerBlock); // nothing in it for us, but the inflater must see every block
      if (frame.isFin) session.streams.get(frame.streamId)?.receiveFin();
      return;
    case "RST_STREAM":
      session.streams.get(frame.streamId)?.receiveReset();
      return;
    case "SETTINGS":
      applySettings(session, frame.settings);
      return;
    case "PING":
      if (frame.id % 2 === 1) session.wire.control(encodePing(frame.id)); // even ones answer ours
      return;
    case "WINDOW_UPDATE":
      growWindow(session, frame.streamId, frame.deltaBytes);
      return;
    case "GOAWAY": // it opens no more streams; it closes the transport when it is done with these
    case "UNKNOWN":
      return;
    default:
      frame satisfies never;
  }
}

function readHeaders(session: Session, headerBlock: Buffer): ReturnType<typeof decodeHeaders> {
  return decodeHeaders(session.inflater.inflate(headerBlock), session.parts.limits);
}

function openStream(session: Session, frame: ControlFrame & { type: "SYN_STREAM" }): void {
  const { parts, streams, wire, queue } = session;
  const headers = readHeaders(session, frame.headerBlock);
  if (frame.streamId % 2 === 0 || frame.streamId <= session.lastStreamId) {
    throw new SpdyError("PROTOCOL_ERROR", "stream id is even or not above the last one");
  }
  session.lastStreamId = frame.streamId;
  parts.touch();
  if (streams.size >= parts.limits.maxStreams || frame.isUnidirectional) {
    wire.control(encodeReset(frame.streamId, "REFUSED_STREAM"));
    return;
  }

  const take = parts.accept(frame.streamId, headers);
  if (take === undefined) {
    wire.control(encodeReset(frame.streamId, "REFUSED_STREAM"));
    return;
  }
  const end = createStream(frame.streamId, headers, streamPort(session, frame.streamId));
  streams.set(frame.streamId, end);
  queue.open(frame.streamId);
  wire.control(encodeSynReply(frame.streamId, session.writeHeaders(new Map())));
  take(end.stream);
  if (frame.isFin) end.receiveFin();
}

function streamPort({ parts, streams, wire, queue }: Session, streamId: number): StreamPort {
  let creditedBytes = 0;
  return {
    send: (bytes, done) => queue.send(streamId, bytes, done),
    sendFin(done) {
      wire.control(encodeDataHead(streamId, 0, true));
      done();
    },
    sendReset: (status) => wire.control(encodeReset(streamId, status)),
    dropped: (pieces) => wire.release(pieces),
    taken(piece) {
      wire.release([piece]);
      parts.touch();
      creditedBytes += piece.length;
      if (creditedBytes < creditBytes) return;
      wire.control(encodeWindowUpdate(streamId, creditedBytes));
      creditedBytes = 0;
    },
    closed() {
      streams.delete(streamId);
      queue.close(streamId);
    },
  };
}

function applySettings(session: Session, settings: readonly { readonly id: number; readonly value: number }[]): void {
  const window = settings.findLast(({ id }) => id === settingInitialWindowSize);
  if (window === undefined) return;
  if (window.value > 0x7fff_ffff) throw new SpdyError("PROTOCOL_ERROR", "initial window is too large");
  session.queue.setInitialWindow(window.value);
}

function growWindow(session: Session, streamId: number, deltaBytes: number): void {
  if (session.queue.grow(streamId, deltaBytes)) return;
  if (streamId === 0) throw new SpdyError("PROTOCOL_ERROR", "window of the session is too large");
  session.wire.control(encodeReset(streamId, "FLOW_CONTROL_ERROR"));
  session.streams.get(streamId)?.receiveReset();
}
