import { SpdyError } from "./spdy-error.ts";

const windowBytes = 32 * 1024;
/** What a block cut by a partial flush may leave for the next one: an empty block of 10 bits. */
const maxCarryBytes = 4;

/** Inflates one connection's header blocks, which are one endless deflate stream cut at flushes. */
export interface Inflater {
  /** @throws {SpdyError} if the block is damaged or its content is longer than the limit. */
  inflate(block: Buffer): Buffer;
}

interface Huffman {
  readonly counts: Uint16Array;
  readonly symbols: Uint16Array;
}

interface Work {
  readonly input: Buffer;
  bit: number;
  output: Buffer;
  length: number;
  readonly maxLength: number;
}

/** Thrown inside only: the input ended in the middle of a block. */
class OutOfInput extends Error {
  override readonly name = "OutOfInput";
}

/**
 * node:zlib would do the same on a thread of its pool, behind whatever else waits there; a header block has some
 * fifty bytes, so it is decoded here, at once, which keeps frames in order without a queue.
 *
 * @see https://www.rfc-editor.org/rfc/rfc1951
 */
export function createInflater(dictionary: Buffer, dictionaryId: number, maxOutputBytes: number): Inflater {
  let history = dictionary.subarray(-windowBytes);
  let carry: { bytes: Buffer; bit: number } | undefined;

  return {
    inflate(block) {
      const body = carry === undefined ? skipZlibHeader(block, dictionaryId) : Buffer.concat([carry.bytes, block]);
      const work: Work = {
        input: body,
        bit: carry?.bit ?? 0,
        output: Buffer.alloc(history.length + 1024),
        length: history.length,
        maxLength: history.length + maxOutputBytes,
      };
      history.copy(work.output);
      readBlocks(work);

      carry = { bytes: Buffer.from(body.subarray(work.bit >> 3)), bit: work.bit & 7 };
      if (carry.bytes.length > maxCarryBytes) throw damaged("header block ends in the middle of a deflate block");
      const result = Buffer.from(work.output.subarray(history.length, work.length));
      history = Buffer.from(work.output.subarray(Math.max(0, work.length - windowBytes), work.length));
      return result;
    },
  };
}

function damaged(message: string): SpdyError {
  return new SpdyError("PROTOCOL_ERROR", message);
}

function skipZlibHeader(block: Buffer, dictionaryId: number): Buffer {
  if (block.length < 6) throw damaged("first header block is shorter than a zlib header");
  const header = block.readUInt16BE(0);
  const isDeflate = (header & 0x0f00) === 0x0800 && header % 31 === 0;
  const hasDictionary = (header & 0x20) !== 0 && block.readUInt32BE(2) === dictionaryId;
  if (!isDeflate || !hasDictionary) throw damaged("header block is not zlib with the SPDY/3 dictionary");
  return block.subarray(6);
}

function readBlocks(work: Work): void {
  while (work.input.length * 8 - work.bit >= 3) {
    const start = { bit: work.bit, length: work.length };
    try {
      readBlock(work);
    } catch (thrown) {
      if (!(thrown instanceof OutOfInput)) throw thrown;
      if (work.length > start.length) throw damaged("header block ends in the middle of a deflate block");
      work.bit = start.bit;
      return;
    }
  }
}

function readBlock(work: Work): void {
  const isFinal = readBits(work, 1) === 1;
  const kind = readBits(work, 2);
  if (isFinal) throw damaged("header stream ends");
  if (kind === 0) readStored(work);
  else if (kind === 1) readCompressed(work, fixedLiterals(), fixedDistances());
  else if (kind === 2) readDynamic(work);
  else throw damaged("header block has an unknown deflate block");
}

function readBits(work: Work, count: number): number {
  let value = 0;
  for (let index = 0; index < count; index++) value |= readBit(work) << index;
  return value;
}

function readBit(work: Work): number {
  const byte = work.input[work.bit >> 3];
  if (byte === undefined) throw new OutOfInput();
  return (byte >> (work.bit++ & 7)) & 1;
}

function readStored(work: Work): void {
  work.bit = (work.bit + 7) & ~7;
  const length = readBits(work, 16);
  const check = readBits(work, 16);
  if ((length ^ check) !== 0xffff) throw damaged("stored deflate block has a wrong length");
  const start = work.bit >> 3;
  const bytes = work.input.subarray(start, start + length);
  reserve(work, bytes.length);
  bytes.copy(work.output, work.length);
  work.length += bytes.length;
  work.bit += bytes.length * 8;
  if (bytes.length < length) throw new OutOfInput();
}

function reserve(work: Work, bytes: number): void {
  const needed = work.length + bytes;
  if (needed > work.maxLength) throw damaged("header block inflates beyond the limit");
  if (needed <= work.output.length) return;
  const grown = Buffer.alloc(Math.min(work.maxLength, Math.max(needed, work.output.length * 2)));
  work.output.copy(grown, 0, 0, work.length);
  work.output = grown;
}

const lengthBases = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
];
const lengthBits = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const distanceBases = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12_289, 16_385, 24_577,
];
const codeLengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

function readCompressed(work: Work, literals: Huffman, distances: Huffman): void {
  for (;;) {
    const symbol = readSymbol(work, literals);
    if (symbol === 256) return;
    if (symbol < 256) {
      reserve(work, 1);
      work.output[work.length++] = symbol;
    } else {
      copyMatch(work, symbol - 257, distances);
    }
  }
}

function copyMatch(work: Work, lengthSymbol: number, distances: Huffman): void {
  const lengthBase = lengthBases[lengthSymbol];
  if (lengthBase === undefined) throw damaged("deflate block has an unknown length");
  const length = lengthBase + readBits(work, lengthBits[lengthSymbol] ?? 0);
  const distanceSymbol = readSymbol(work, distances);
  const distanceBase = distanceBases[distanceSymbol];
  if (distanceBase === undefined) throw damaged("deflate block has an unknown distance");
  const distance = distanceBase + readBits(work, Math.max(0, (distanceSymbol >> 1) - 1));
  if (distance > work.length) throw damaged("deflate block refers to before its window");
  reserve(work, length);
  for (let index = 0; index < length; index++) {
    work.output[work.length] = work.output[work.length - distance] ?? 0;
    work.length++;
  }
}

function readSymbol(work: Work, huffman: Huffman): number {
  let code = 0;
  let first = 0;
  let index = 0;
  for (let length = 1; length <= 15; length++) {
    code |= readBit(work);
    const count = huffman.counts[length] ?? 0;
    if (code - count < first) return huffman.symbols[index + (code - first)] ?? 0;
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  throw damaged("deflate block has an unknown code");
}

function buildHuffman(lengths: Uint8Array): Huffman {
  const counts = new Uint16Array(16);
  for (const length of lengths) counts[length] = (counts[length] ?? 0) + 1;
  counts[0] = 0;
  let room = 1;
  for (let length = 1; length <= 15; length++) {
    room = (room << 1) - (counts[length] ?? 0);
    if (room < 0) throw damaged("deflate block has an over-full code");
  }
  const offsets = new Uint16Array(17);
  for (let length = 1; length <= 15; length++) offsets[length + 1] = (offsets[length] ?? 0) + (counts[length] ?? 0);
  const symbols = new Uint16Array(lengths.length);
  for (const [symbol, length] of lengths.entries()) {
    if (length === 0) continue;
    const offset = offsets[length] ?? 0;
    symbols[offset] = symbol;
    offsets[length] = offset + 1;
  }
  return { counts, symbols };
}

function fixedLiterals(): Huffman {
  const lengths = new Uint8Array(288).fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280);
  return buildHuffman(lengths);
}

function fixedDistances(): Huffman {
  return buildHuffman(new Uint8Array(30).fill(5));
}

function readDynamic(work: Work): void {
  const literalCount = readBits(work, 5) + 257;
  const distanceCount = readBits(work, 5) + 1;
  const codeCount = readBits(work, 4) + 4;
  if (literalCount > 286 || distanceCount > 30) throw damaged("deflate block has too many codes");
  const codeLengths = new Uint8Array(19);
  for (const position of codeLengthOrder.slice(0, codeCount)) codeLengths[position] = readBits(work, 3);
  const lengths = readCodeLengths(work, buildHuffman(codeLengths), literalCount + distanceCount);
  if (lengths[256] === 0) throw damaged("deflate block has no end");
  readCompressed(work, buildHuffman(lengths.subarray(0, literalCount)), buildHuffman(lengths.subarray(literalCount)));
}

function readCodeLengths(work: Work, huffman: Huffman, count: number): Uint8Array {
  const lengths = new Uint8Array(count);
  let filled = 0;
  while (filled < count) {
    const symbol = readSymbol(work, huffman);
    const run = symbol < 16 ? { value: symbol, times: 1 } : readRun(work, symbol, lengths[filled - 1]);
    if (filled + run.times > count) throw damaged("deflate block repeats a length too often");
    lengths.fill(run.value, filled, filled + run.times);
    filled += run.times;
  }
  return lengths;
}

function readRun(work: Work, symbol: number, previous: number | undefined): { value: number; times: number } {
  if (symbol === 17) return { value: 0, times: 3 + readBits(work, 3) };
  if (symbol === 18) return { value: 0, times: 11 + readBits(work, 7) };
  if (previous === undefined) throw damaged("deflate block repeats a length before the first");
  return { value: previous, times: 3 + readBits(work, 2) };
}
