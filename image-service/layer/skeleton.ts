import { closeSync, fstatSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/**
 * What a layer's archive has besides the contents of its files: headers, padding, the end. With the unpacked files it
 * makes the archive again, to the byte, so that a layer can be exported and held against its diffID without its blob
 * being kept. Some thirty bytes on disk for a file.
 */
export interface Skeleton extends Disposable {
  /** Takes the next bytes; they are copied. */
  add(bytes: Buffer): void;
  /** Writes the rest; resolves to the blocks on disk, in bytes. */
  finish(): number;
  /** Removes it: the archive cannot be made again. */
  discard(): void;
}

const fileName = "skeleton.gz";
/** Each piece is a gzip member of its own; one stream would be no smaller. */
const pieceBytes = 256 << 10;

/** Name of the layer's root inside its folder; what else belongs to the layer lies beside it. */
export const layerRootName = "diff";

/** Where the skeleton of the layer in this folder is, if it has one. */
export function skeletonPath(directory: string): string {
  return join(directory, fileName);
}

export function createSkeleton(directory: string): Skeleton {
  const path = skeletonPath(directory);
  const fd = openSync(path, "wx", 0o600);
  const piece = Buffer.allocUnsafe(pieceBytes);
  let filled = 0;

  function flush(): void {
    if (filled === 0) return;
    const packed = gzipSync(piece.subarray(0, filled), { level: 1 });
    for (let offset = 0; offset < packed.length; ) offset += writeSync(fd, packed, offset);
    filled = 0;
  }
  return {
    add(bytes) {
      for (let offset = 0; offset < bytes.length; ) {
        const length = bytes.copy(piece, filled, offset);
        offset += length;
        filled += length;
        if (filled === pieceBytes) flush();
      }
    },
    finish() {
      flush();
      return fstatSync(fd).blocks * 512;
    },
    discard: () => rmSync(path),
    [Symbol.dispose]: () => closeSync(fd),
  };
}
