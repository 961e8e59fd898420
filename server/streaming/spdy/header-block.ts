import { dictionaryId } from "./dictionary.ts";
import { SpdyError } from "./spdy-error.ts";

/** Lower-case names; several values of one name stay joined by NUL, as they travel. */
export type SpdyHeaders = ReadonlyMap<string, string>;

export interface HeaderLimits {
  readonly maxHeaders: number;
  readonly maxFieldBytes: number;
}

/** An empty stored block: Go's zlib reader returns a header block only after it has seen one. */
const flushMarker = Buffer.from([0, 0, 0, 0xff, 0xff]);
const maxStoredBytes = 0xffff;

/**
 * Makes the header blocks of one direction of a connection. They are stored, not compressed: ours hold next to
 * nothing, and stored blocks need no state.
 */
export function createHeaderWriter(): (headers: SpdyHeaders) => Buffer {
  let isFirst = true;
  return (headers) => {
    const content = encodeHeaders(headers);
    if (content.length > maxStoredBytes) throw new RangeError("header block is longer than one stored block");
    const stored = Buffer.alloc(5);
    stored.writeUInt16LE(content.length, 1);
    stored.writeUInt16LE(content.length ^ 0xffff, 3);
    const parts = [...(isFirst ? [zlibHeader()] : []), stored, content, flushMarker];
    isFirst = false;
    return Buffer.concat(parts);
  };
}

function zlibHeader(): Buffer {
  const header = Buffer.from([0x78, 0x20, 0, 0, 0, 0]); // deflate, 32 KiB window, preset dictionary
  header.writeUInt32BE(dictionaryId, 2);
  return header;
}

/** The name/value block before compression. */
export function encodeHeaders(headers: SpdyHeaders): Buffer {
  const parts: Buffer[] = [encodeLength(headers.size)];
  for (const [name, value] of headers) {
    const fields = [Buffer.from(name.toLowerCase(), "utf8"), Buffer.from(value, "utf8")];
    for (const field of fields) parts.push(encodeLength(field.length), field);
  }
  return Buffer.concat(parts);
}

function encodeLength(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** @throws {SpdyError} on a block that is cut short, over a limit, or names a header twice. */
export function decodeHeaders(content: Buffer, limits: HeaderLimits): SpdyHeaders {
  let position = 0;
  const readLength = (): number => {
    if (position + 4 > content.length) throw new SpdyError("PROTOCOL_ERROR", "header block is cut short");
    position += 4;
    return content.readUInt32BE(position - 4);
  };
  const readField = (): string => {
    const length = readLength();
    if (length > limits.maxFieldBytes) throw new SpdyError("PROTOCOL_ERROR", "header is longer than the limit");
    if (position + length > content.length) throw new SpdyError("PROTOCOL_ERROR", "header block is cut short");
    position += length;
    return content.toString("utf8", position - length, position);
  };

  const count = readLength();
  if (count > limits.maxHeaders) throw new SpdyError("PROTOCOL_ERROR", "header block has more headers than the limit");
  const headers = new Map<string, string>();
  for (let index = 0; index < count; index++) {
    const name = readField().toLowerCase();
    const value = readField();
    if (name === "" || headers.has(name)) {
      throw new SpdyError("PROTOCOL_ERROR", "header block has an empty or repeated name");
    }
    headers.set(name, value);
  }
  if (position !== content.length) throw new SpdyError("PROTOCOL_ERROR", "header block has bytes after its headers");
  return headers;
}
