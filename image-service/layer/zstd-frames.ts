import { LayerError } from "./layer-error.ts";

const frameMagic = 0xfd2fb528;
const skippableMagic = 0x184d2a50;

/**
 * Tells where zstd frames end. `node:zlib` decodes a stream of several frames only if each write ends with a frame at
 * the latest: what follows in the same write it drops silently (Node 24.21).
 *
 * @see https://www.rfc-editor.org/rfc/rfc8878#section-3
 */
export interface ZstdFrames {
  /** Cuts the next bytes of the stream at the ends of frames. */
  split(chunk: Buffer): Generator<Buffer, void>;
}

type Need = "magic" | "descriptor" | "header-end" | "block" | "block-end" | "checksum" | "skip-size" | "skip-end";

/** Bytes that follow the descriptor byte of a frame header. */
function headerBytes(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  return (isSingleSegment ? 0 : 1) + dictionary + contentSize;
}

interface State {
  /** What the field being read is, or what the bytes passed over end. */
  need: Need;
  /** Bytes of the field, its value so far (little endian), bytes read of it. */
  wanted: number;
  field: number;
  got: number;
  /** Bytes to pass over before anything is read again. */
  skip: number;
  hasChecksum: boolean;
  isLastBlock: boolean;
}

function expect(state: State, need: Need, wanted: number): false {
  state.need = need;
  state.wanted = wanted;
  state.field = 0;
  state.got = 0;
  return false;
}

function endFrame(state: State): true {
  expect(state, "magic", 4);
  return true;
}

function afterBlock(state: State): boolean {
  if (!state.isLastBlock) return expect(state, "block", 3);
  return state.hasChecksum ? expect(state, "checksum", 4) : endFrame(state);
}

function takeMagic(state: State, magic: number): false {
  if ((magic & 0xfffffff0) >>> 0 === skippableMagic) return expect(state, "skip-size", 4);
  if (magic !== frameMagic) throw new LayerError("the layer is not a zstd stream");
  return expect(state, "descriptor", 1);
}

function takeBlockHeader(state: State, header: number): boolean {
  const type = (header >> 1) & 3;
  if (type === 3) throw new LayerError("the layer is not a zstd stream");
  state.isLastBlock = (header & 1) !== 0;
  state.skip = type === 1 ? 1 : header >> 3; // a run-length block stores one byte
  expect(state, "block-end", 0);
  return state.skip === 0 && afterBlock(state);
}

/** A field is complete; true when it ends a frame. */
function takeField(state: State): boolean {
  const { need, field } = state;
  if (need === "magic") return takeMagic(state, field);
  if (need === "block") return takeBlockHeader(state, field);
  if (need === "checksum") return endFrame(state);
  if (need === "descriptor") {
    state.hasChecksum = (field & 4) !== 0;
    state.skip = headerBytes(field);
    return expect(state, "header-end", 0);
  }
  state.skip = field;
  expect(state, "skip-end", 0);
  return state.skip === 0 && endFrame(state);
}

/** What was passed over is at its end; true when that ends a frame. */
function endSkip(state: State): boolean {
  if (state.need === "block-end") return afterBlock(state);
  return state.need === "skip-end" ? endFrame(state) : expect(state, "block", 3);
}

/** Consumes some bytes from `offset` on: how many, and whether a frame ends with them. */
function step(state: State, chunk: Buffer, offset: number): { length: number; isEnd: boolean } {
  if (state.skip > 0) {
    const length = Math.min(state.skip, chunk.length - offset);
    state.skip -= length;
    return { length, isEnd: state.skip === 0 && endSkip(state) };
  }
  state.field = (state.field | ((chunk[offset] ?? 0) << (8 * state.got))) >>> 0;
  state.got += 1;
  return { length: 1, isEnd: state.got === state.wanted && takeField(state) };
}

export function createZstdFrames(): ZstdFrames {
  const state: State = {
    need: "magic",
    wanted: 4,
    field: 0,
    got: 0,
    skip: 0,
    hasChecksum: false,
    isLastBlock: false,
  };
  return {
    *split(chunk) {
      let start = 0;
      for (let offset = 0; offset < chunk.length; ) {
        const { length, isEnd } = step(state, chunk, offset);
        offset += length;
        if (!isEnd) continue;
        yield chunk.subarray(start, offset);
        start = offset;
      }
      if (start < chunk.length) yield chunk.subarray(start);
    },
  };
}
