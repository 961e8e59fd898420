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

type Need = "magic" | "descriptor" | "header" | "block" | "checksum" | "skip-size" | "between";

/** Bytes that follow the descriptor byte of a frame header. */
function headerBytes(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionary = [0, 1, 2, 4][descriptor & 3] ?? 0;
  return (isSingleSegment ? 0 : 1) + dictionary + contentSize;
}

export function createZstdFrames(): ZstdFrames {
  let need: Need = "magic";
  let wanted = 4; // bytes of the field being read
  let field = 0; // little endian
  let got = 0;
  let skip = 0; // bytes to pass over, then `need`
  let hasChecksum = false;
  let isLastBlock = false;

  function expect(next: Need, bytes: number): void {
    need = next;
    wanted = bytes;
    field = 0;
    got = 0;
  }
  function endFrame(): boolean {
    expect("magic", 4);
    return true;
  }
  function afterBlock(): boolean {
    if (!isLastBlock) {
      expect("block", 3);
      return false;
    }
    if (!hasChecksum) return endFrame();
    expect("checksum", 4);
    return false;
  }
  /** A field is complete; true when it, and what it announced, ends a frame. */
  function takeField(): boolean {
    switch (need) {
      case "magic":
        if ((field & 0xfffffff0) >>> 0 === skippableMagic) expect("skip-size", 4);
        else if (field >>> 0 === frameMagic) expect("descriptor", 1);
        else throw new LayerError("the layer is not a zstd stream");
        return false;
      case "descriptor":
        hasChecksum = (field & 4) !== 0;
        skip = headerBytes(field);
        expect("header", 0);
        return false;
      case "block": {
        isLastBlock = (field & 1) !== 0;
        const type = (field >> 1) & 3;
        if (type === 3) throw new LayerError("the layer is not a zstd stream");
        skip = type === 1 ? 1 : field >> 3;
        expect("between", 0);
        return skip === 0 && afterBlock();
      }
      case "skip-size":
        skip = field >>> 0;
        expect("checksum", 0);
        return skip === 0 && endFrame();
      case "header":
      case "between":
      case "checksum":
        return endFrame();
    }
  }
  /** What was passed over is at its end; true when that ends a frame. */
  function endSkip(): boolean {
    if (need === "between") return afterBlock();
    if (need === "checksum") return endFrame();
    expect("block", 3);
    return false;
  }

  return {
    *split(chunk) {
      let start = 0;
      for (let offset = 0; offset < chunk.length; ) {
        let isEnd = false;
        if (skip > 0) {
          const step = Math.min(skip, chunk.length - offset);
          skip -= step;
          offset += step;
          isEnd = skip === 0 && endSkip();
        } else {
          field = (field | ((chunk[offset] ?? 0) << (8 * got))) >>> 0;
          got += 1;
          offset += 1;
          isEnd = got === wanted && takeField();
        }
        if (isEnd) {
          yield chunk.subarray(start, offset);
          start = offset;
        }
      }
      if (start < chunk.length) yield chunk.subarray(start);
    },
  };
}
