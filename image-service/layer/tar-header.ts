import { isUtf8 } from "node:buffer";

import { decodeName } from "../../native/index.ts";
import { maxPathBytes } from "./entry-path.ts";
import { LayerError } from "./layer-error.ts";

export const blockBytes = 512;

/** The fields of one 512-byte header, before extended headers are applied. */
export interface TarHeader {
  readonly typeFlag: string;
  readonly name: string;
  readonly linkName: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** Text of a header: the name on disk is byte for byte the one in the archive, be it UTF-8 or not. */
export function decodeText(bytes: Buffer): string {
  if (bytes.length > maxPathBytes && !isUtf8(bytes))
    throw new LayerError(`the layer has a text of more than ${maxPathBytes} bytes that is not UTF-8`);
  return decodeName(bytes);
}

function textField(block: Buffer, offset: number, length: number): string {
  const end = block.indexOf(0, offset);
  const stop = end === -1 || end > offset + length ? offset + length : end;
  for (let index = offset; index < stop; index += 1)
    if ((block[index] ?? 0) >= 0x80) return decodeText(block.subarray(offset, stop));
  return block.toString("latin1", offset, stop);
}

/** Base-256 with the top bit set (GNU), two's complement over the whole field. */
function binaryNumber(block: Buffer, offset: number, length: number): number {
  let value = 0n;
  for (let index = offset; index < offset + length; index += 1) value = (value << 8n) | BigInt(block[index] ?? 0);
  const bits = length * 8;
  const isNegative = block[offset] === 0xff;
  return Number(isNegative ? BigInt.asIntN(bits, value) : BigInt.asUintN(bits - 1, value));
}

/** A numeric field: octal text, or binary. Outside the safe integers it is refused. */
export function numberField(block: Buffer, offset: number, length: number): number {
  if (((block[offset] ?? 0) & 0x80) !== 0) {
    const value = binaryNumber(block, offset, length);
    if (!Number.isSafeInteger(value)) throw new LayerError("a number in a tar header is out of range");
    return value;
  }
  let index = offset;
  const end = offset + length;
  while (index < end && (block[index] === 0x20 || block[index] === 0)) index += 1;
  let value = 0;
  for (; index < end; index += 1) {
    const digit = (block[index] ?? 0) - 0x30;
    if (digit === -0x30 || digit === -0x10) break; // NUL or space ends the field
    if (digit < 0 || digit > 7) throw new LayerError("a number in a tar header is malformed");
    value = value * 8 + digit;
  }
  return value;
}

export function isZeroBlock(block: Buffer): boolean {
  for (let index = 0; index < blockBytes; index += 1) if (block[index] !== 0) return false;
  return true;
}

/** Both sums are in use: the right one over unsigned bytes, and that of old tars over signed ones. */
function hasValidChecksum(block: Buffer): boolean {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let index = 0; index < blockBytes; index += 1) {
    if (index >= 148 && index < 156) continue;
    const byte = block[index] ?? 0;
    unsigned += byte;
    signed += byte > 127 ? byte - 256 : byte;
  }
  const stated = numberField(block, 148, 8);
  return stated === unsigned || stated === signed;
}

/**
 * Reads one header block.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
 */
export function parseTarHeader(block: Buffer): TarHeader {
  if (!hasValidChecksum(block)) throw new LayerError("a tar header has a wrong checksum");
  const isUstar = block[257] === 0x75 && block.toString("latin1", 257, 263) === "ustar\0";
  const prefix = isUstar ? textField(block, 345, 155) : "";
  const name = textField(block, 0, 100);
  const size = numberField(block, 124, 12);
  if (size < 0) throw new LayerError("a tar header has a negative size");
  return {
    typeFlag: String.fromCharCode(block[156] ?? 0),
    name: prefix === "" ? name : `${prefix}/${name}`,
    linkName: textField(block, 157, 100),
    mode: numberField(block, 100, 8),
    uid: numberField(block, 108, 8),
    gid: numberField(block, 116, 8),
    size,
    mtimeSeconds: numberField(block, 136, 12),
    deviceMajor: numberField(block, 329, 8),
    deviceMinor: numberField(block, 337, 8),
  };
}
