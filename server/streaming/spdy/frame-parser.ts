import { type ControlFrame, controlTypes, flagFin, flagUnidirectional, spdyVersion } from "./frames.ts";
import { SpdyError } from "./spdy-error.ts";

/** Receives what the parser reads, in order. Anything it throws leaves `push` again. */
export interface FrameHandler {
  control(frame: ControlFrame): void;
  /** A piece of a data frame; `isFin` comes with the last piece of a frame that had the flag. */
  data(streamId: number, piece: Buffer, isFin: boolean): void;
}

const headBytes = 8;
const empty = Buffer.alloc(0);

type State =
  | { readonly kind: "head" }
  | { readonly kind: "control"; readonly type: number; readonly flags: number; readonly lengthBytes: number }
  | { readonly kind: "data"; readonly streamId: number; readonly isFin: boolean; readonly leftBytes: number };

/**
 * Cuts bytes into SPDY/3.1 frames. Control frames are gathered whole, up to a limit; data frames pass through in the
 * pieces they arrive in, so that a frame of 16 MiB costs no more than one of 16 KiB.
 */
export function createFrameParser(maxControlBytes: number, handler: FrameHandler): { push(chunk: Buffer): void } {
  let state: State = { kind: "head" };
  let gathered = empty;
  let gatheredBytes = 0;

  /** The next `wanted` bytes in one piece, or undefined while they are not all here. */
  const gather = (source: { rest: Buffer }, wanted: number): Buffer | undefined => {
    const piece = source.rest.subarray(0, wanted - gatheredBytes);
    source.rest = source.rest.subarray(piece.length);
    if (piece.length === wanted) return piece;
    if (gatheredBytes === 0) gathered = Buffer.alloc(wanted);
    piece.copy(gathered, gatheredBytes);
    gatheredBytes += piece.length;
    if (gatheredBytes < wanted) return undefined;
    gatheredBytes = 0;
    return gathered;
  };

  const passData = (source: { rest: Buffer }, data: State & { kind: "data" }): void => {
    const piece = source.rest.subarray(0, data.leftBytes);
    source.rest = source.rest.subarray(piece.length);
    const leftBytes = data.leftBytes - piece.length;
    state = leftBytes === 0 ? { kind: "head" } : { ...data, leftBytes };
    handler.data(data.streamId, piece, data.isFin && leftBytes === 0);
  };

  const step = (source: { rest: Buffer }): boolean => {
    if (state.kind === "data") {
      passData(source, state);
      return true;
    }
    const wanted = state.kind === "head" ? headBytes : state.lengthBytes;
    const bytes = wanted === 0 ? empty : gather(source, wanted);
    if (bytes === undefined) return false;
    const previous = state;
    state = previous.kind === "head" ? readHead(bytes, maxControlBytes) : { kind: "head" };
    if (previous.kind === "control") handler.control(readControl(previous.type, previous.flags, bytes));
    return true;
  };

  return {
    push(chunk) {
      const source = { rest: chunk };
      while (source.rest.length > 0 || isComplete(state)) {
        if (!step(source)) return;
      }
    },
  };
}

/** A frame without payload is complete with its head. */
function isComplete(state: State): boolean {
  return (state.kind === "control" && state.lengthBytes === 0) || (state.kind === "data" && state.leftBytes === 0);
}

function readHead(head: Buffer, maxControlBytes: number): State {
  const flags = head.readUInt8(4);
  const lengthBytes = head.readUIntBE(5, 3);
  const firstWord = head.readUInt32BE(0);
  if (firstWord < 0x8000_0000) {
    if (firstWord === 0) throw new SpdyError("PROTOCOL_ERROR", "data frame for stream 0");
    return { kind: "data", streamId: firstWord, isFin: (flags & flagFin) !== 0, leftBytes: lengthBytes };
  }
  const version = head.readUInt16BE(0) & 0x7fff;
  if (version !== spdyVersion) throw new SpdyError("PROTOCOL_ERROR", `frame of SPDY version ${version}`);
  if (lengthBytes > maxControlBytes) throw new SpdyError("PROTOCOL_ERROR", "control frame is longer than the limit");
  return { kind: "control", type: head.readUInt16BE(2), flags, lengthBytes };
}

function readControl(type: number, flags: number, payload: Buffer): ControlFrame {
  const isFin = (flags & flagFin) !== 0;
  switch (type) {
    case controlTypes.SYN_STREAM: {
      const isUnidirectional = (flags & flagUnidirectional) !== 0;
      const streamId = readStreamId(payload, 10);
      return { type: "SYN_STREAM", streamId, isFin, isUnidirectional, headerBlock: payload.subarray(10) };
    }
    case controlTypes.SYN_REPLY:
      return { type: "SYN_REPLY", streamId: readStreamId(payload, 4), isFin, headerBlock: payload.subarray(4) };
    case controlTypes.HEADERS:
      return { type: "HEADERS", streamId: readStreamId(payload, 4), isFin, headerBlock: payload.subarray(4) };
    case controlTypes.SETTINGS:
      return { type: "SETTINGS", settings: readSettings(payload) };
    default:
      return readShortControl(type, payload);
  }
}

function readShortControl(type: number, payload: Buffer): ControlFrame {
  switch (type) {
    case controlTypes.RST_STREAM:
      return { type: "RST_STREAM", streamId: readStreamId(payload, 8, 8), status: payload.readUInt32BE(4) };
    case controlTypes.PING:
      expectLength(payload, 4, 4);
      return { type: "PING", id: payload.readUInt32BE(0) };
    case controlTypes.GOAWAY:
      expectLength(payload, 8, 8);
      return { type: "GOAWAY", lastStreamId: payload.readUInt32BE(0) & 0x7fff_ffff, status: payload.readUInt32BE(4) };
    case controlTypes.WINDOW_UPDATE: {
      expectLength(payload, 8, 8);
      const deltaBytes = payload.readUInt32BE(4) & 0x7fff_ffff;
      return { type: "WINDOW_UPDATE", streamId: payload.readUInt32BE(0) & 0x7fff_ffff, deltaBytes };
    }
    default:
      return { type: "UNKNOWN", number: type };
  }
}

function expectLength(payload: Buffer, least: number, most: number): void {
  if (payload.length < least || payload.length > most) {
    throw new SpdyError("PROTOCOL_ERROR", "control frame has a wrong length");
  }
}

function readStreamId(payload: Buffer, least: number, most = Number.POSITIVE_INFINITY): number {
  expectLength(payload, least, most);
  const streamId = payload.readUInt32BE(0) & 0x7fff_ffff;
  if (streamId === 0) throw new SpdyError("PROTOCOL_ERROR", "control frame for stream 0");
  return streamId;
}

function readSettings(payload: Buffer): { id: number; value: number }[] {
  expectLength(payload, 4, Number.POSITIVE_INFINITY);
  const count = payload.readUInt32BE(0);
  if (payload.length !== 4 + count * 8) throw new SpdyError("PROTOCOL_ERROR", "SETTINGS frame has a wrong length");
  return Array.from({ length: count }, (_, index) => ({
    id: payload.readUIntBE(4 + index * 8 + 1, 3),
    value: payload.readUInt32BE(4 + index * 8 + 4),
  }));
}
