import { LayerError } from "./layer-error.ts";
import { decodeText } from "./tar-header.ts";

const newline = 0x0a;
const space = 0x20;
const maxRecords = 4096;

/**
 * The records of a pax extended header: `<length> <key>=<value>\n`, where a value may be any bytes.
 *
 * @see https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_03
 */
export function parsePaxRecords(bytes: Buffer): ReadonlyMap<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let offset = 0; offset < bytes.length; ) {
    const gap = bytes.indexOf(space, offset);
    const digits = gap === -1 || gap - offset > 8 ? "" : bytes.toString("latin1", offset, gap);
    const length = /^[1-9]\d*$/.test(digits) ? Number(digits) : 0;
    const end = offset + length;
    if (length === 0 || end > bytes.length || bytes[end - 1] !== newline)
      throw new LayerError("an extended header is malformed");
    const equals = bytes.indexOf(0x3d, gap);
    if (equals === -1 || equals >= end || equals === gap + 1) throw new LayerError("an extended header is malformed");
    records.set(decodeText(bytes.subarray(gap + 1, equals)), bytes.subarray(equals + 1, end - 1));
    if (records.size > maxRecords) throw new LayerError(`an extended header has more than ${maxRecords} records`);
    offset = end;
  }
  return records;
}

export function parsePaxNumber(value: Buffer, key: string): number {
  const text = value.toString("latin1", 0, 32);
  const parsed = /^\d{1,19}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(parsed)) throw new LayerError(`the extended header "${key}" is out of range`);
  return parsed;
}

/** Nanoseconds since the epoch: of `1700000000.123456789`, `-1.5`. */
export function parsePaxTime(value: Buffer): bigint {
  const match = /^(-?)(\d{1,15})(?:\.(\d*))?$/.exec(value.toString("latin1", 0, 64));
  if (match === null) throw new LayerError("a time in an extended header is malformed");
  const nanoseconds = BigInt(match[2] ?? "0") * 1_000_000_000n + BigInt((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  return match[1] === "" ? nanoseconds : -nanoseconds;
}
