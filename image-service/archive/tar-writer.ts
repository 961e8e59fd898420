import { blockBytes } from "../layer/tar-header.ts";

const maxOctalSize = 8 ** 11;

/** A file's size: octal, or binary with the top bit set where that is too small (GNU). */
function sizeField(size: number): Buffer {
  if (size < maxOctalSize) return Buffer.from(`${size.toString(8).padStart(11, "0")}\0`);
  const field = Buffer.alloc(12);
  field.writeBigUInt64BE(BigInt(size), 4);
  field[0] = 0x80;
  return field;
}

const maxNameBytes = 100;

function header(name: string, size: number, type: "0" | "x"): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.write(name, 0, maxNameBytes);
  block.write("0000644\x000000000\x000000000\0", 100);
  sizeField(size).copy(block, 124);
  block.write(`00000000000\0        ${type}`, 136);
  block.write("ustar\x0000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** A record of pax, which begins with its own length. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const digits = String(rest.length + 2).length; // enough for names of at most 990 characters
  return `${rest.length + digits}${rest}`;
}

/** The header of a plain file that belongs to root; a pax header stands before it where the name is too long (ASCII). */
export function fileHeader(name: string, size: number): Buffer {
  const own = header(name, size, "0");
  if (name.length <= maxNameBytes) return own;
  const record = Buffer.from(paxRecord("path", name));
  return Buffer.concat([header("pax", record.length, "x"), record, paddingOf(record.length), own]);
}

/** What fills the last block of a file. */
export function paddingOf(size: number): Buffer {
  return Buffer.alloc((blockBytes - (size % blockBytes)) % blockBytes);
}

/** A small file, whole. */
export function smallFile(name: string, content: string): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([fileHeader(name, bytes.length), bytes, paddingOf(bytes.length)]);
}

/** The end of an archive. */
export const archiveEnd: Buffer = Buffer.alloc(2 * blockBytes);
