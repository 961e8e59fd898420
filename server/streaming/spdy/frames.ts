import { type GoawayStatus, goawayStatuses, type ResetStatus, resetStatuses } from "./spdy-error.ts";

/** Control frame types of SPDY/3.1 and their numbers on the wire. */
export const controlTypes = {
  SYN_STREAM: 1,
  SYN_REPLY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  HEADERS: 8,
  WINDOW_UPDATE: 9,
} as const;

export const spdyVersion = 3;
export const flagFin = 0x01;
export const flagUnidirectional = 0x02;
/** Identifier of the one setting that concerns us: the window a new stream starts with. */
export const settingInitialWindowSize = 7;
/** Window of a stream and of the session before anybody changed it. */
export const defaultWindowBytes = 64 * 1024;

/** A control frame as read; `headerBlock` is still compressed. */
export type ControlFrame =
  | {
      readonly type: "SYN_STREAM";
      readonly streamId: number;
      readonly isFin: boolean;
      readonly isUnidirectional: boolean;
      readonly headerBlock: Buffer;
    }
  | {
      readonly type: "SYN_REPLY" | "HEADERS";
      readonly streamId: number;
      readonly isFin: boolean;
      readonly headerBlock: Buffer;
    }
  | { readonly type: "RST_STREAM"; readonly streamId: number; readonly status: number }
  | { readonly type: "SETTINGS"; readonly settings: readonly { readonly id: number; readonly value: number }[] }
  | { readonly type: "PING"; readonly id: number }
  | { readonly type: "GOAWAY"; readonly lastStreamId: number; readonly status: number }
  | { readonly type: "WINDOW_UPDATE"; readonly streamId: number; readonly deltaBytes: number }
  | { readonly type: "UNKNOWN"; readonly number: number };

function controlFrame(type: keyof typeof controlTypes, flags: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(0x8000 | spdyVersion, 0);
  head.writeUInt16BE(controlTypes[type], 2);
  head.writeUInt32BE(payload.length, 4);
  head.writeUInt8(flags, 4);
  return Buffer.concat([head, payload]);
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, index * 4);
  return bytes;
}

export function encodeSynStream(streamId: number, headerBlock: Buffer, flags = 0): Buffer {
  return controlFrame("SYN_STREAM", flags, Buffer.concat([words(streamId, 0), Buffer.alloc(2), headerBlock]));
}

export function encodeSynReply(streamId: number, headerBlock: Buffer, flags = 0): Buffer {
  return controlFrame("SYN_REPLY", flags, Buffer.concat([words(streamId), headerBlock]));
}

export function encodeHeadersFrame(streamId: number, headerBlock: Buffer, flags = 0): Buffer {
  return controlFrame("HEADERS", flags, Buffer.concat([words(streamId), headerBlock]));
}

export function encodeReset(streamId: number, status: ResetStatus): Buffer {
  return controlFrame("RST_STREAM", 0, words(streamId, resetStatuses[status]));
}

export function encodeSettings(settings: readonly { readonly id: number; readonly value: number }[]): Buffer {
  return controlFrame("SETTINGS", 0, words(settings.length, ...settings.flatMap(({ id, value }) => [id, value])));
}

export function encodePing(id: number): Buffer {
  return controlFrame("PING", 0, words(id));
}

export function encodeGoaway(lastStreamId: number, status: GoawayStatus): Buffer {
  return controlFrame("GOAWAY", 0, words(lastStreamId, goawayStatuses[status]));
}

export function encodeWindowUpdate(streamId: number, deltaBytes: number): Buffer {
  return controlFrame("WINDOW_UPDATE", 0, words(streamId, deltaBytes));
}

/** The eight bytes before the payload of a data frame. */
export function encodeDataHead(streamId: number, lengthBytes: number, isFin: boolean): Buffer {
  const head = words(streamId, lengthBytes);
  head.writeUInt8(isFin ? flagFin : 0, 4);
  return head;
}
