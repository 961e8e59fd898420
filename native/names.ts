import { isUtf8 } from "node:buffer";

/** Where bytes that are no UTF-8 stand in a text: U+DC80 to U+DCFF, as in Python's `surrogateescape` (PEP 383). */
const escapes = 0xdc00;

/**
 * The text of a file name, whatever bytes it is of. UTF-8 is read as such; each byte that belongs to none becomes half
 * a surrogate pair, which the addon's calls take for that byte: no two names have the same text.
 */
export function decodeName(bytes: Uint8Array): string {
  const name = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(name)) return name.toString("utf8");
  let text = "";
  for (let at = 0; at < name.length; ) {
    const sequence = name.subarray(at, at + sequenceBytes(name[at] ?? 0));
    const isText = isUtf8(sequence);
    text += isText ? sequence.toString("utf8") : String.fromCharCode(escapes + (name[at] ?? 0));
    at += isText ? sequence.length : 1;
  }
  return text;
}

/** How many bytes a code point has that begins so. */
function sequenceBytes(first: number): number {
  if (first < 0xc0) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}

/** The bytes that {@link decodeName} was given. */
export function encodeName(name: string): Buffer {
  if (name.isWellFormed()) return Buffer.from(name);
  const pieces = name.split(/([\uDC80-\uDCFF]+)/u); // every second one is of escapes
  return Buffer.concat(pieces.map((piece, index) => Buffer.from(piece, index % 2 === 1 ? "latin1" : "utf8")));
}
