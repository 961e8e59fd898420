import { closeSync, constants, lstatSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";

import { syscalls } from "../../native/index.ts";
import { createDigestHash, type Digest, finishDigest } from "../digest.ts";
import type { PullLimits } from "../registry/limits.ts";
import { decompress } from "./decompress.ts";
import { LayerError } from "./layer-error.ts";
import { createReplaced, type Replaced } from "./replaced.ts";
import { createSkeleton, layerRootName, type Skeleton } from "./skeleton.ts";
import { createTarReader } from "./tar-reader.ts";
import { createLayerTree, type LayerTree, type TreeUsage } from "./tree.ts";
import { verifyLayer } from "./verify.ts";

export interface UnpackTarget {
  /** An empty folder of ours; the layer goes to `diff` in it, its archive's skeleton beside that. */
  readonly directory: string;
  readonly diffId: Digest;
  readonly limits: PullLimits;
  /** Called with the uncompressed bytes handled so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

export interface UnpackedLayer extends TreeUsage {
  readonly uncompressedBytes: number;
}

/** An artifact's file and where its bytes come from. */
export interface UnpackedFile {
  readonly path: string;
  readonly size: number;
  readonly bytes: AsyncGenerator<Buffer, void>;
}

/**
 * Keeps what the archive can be made of again, and the layer be held against; answers the room it takes, with the layer's
 * own folder. Where members took each other's place under names that led through links, that may be more than can be
 * told apart: such a layer is looked at once, and goes without if it does not hold.
 */
async function keepArchive(
  target: UnpackTarget,
  skeleton: Skeleton,
  made: { readonly tree: LayerTree; readonly replaced: Replaced; readonly sizeBytes: number },
): Promise<TreeUsage> {
  const { tree, replaced, sizeBytes } = made;
  const skeletonBytes = skeleton.finish();
  const onProgress = (): void => target.onProgress?.(sizeBytes); // it goes on, though nothing more is unpacked
  const holds = async (): Promise<boolean> => (await verifyLayer({ ...target, onProgress })) === undefined;
  const isWanted = tree.isComplete() && (!tree.hasReplaced() || (await holds()));
  if (!isWanted) skeleton.discard();
  const { usedBytes, inodes } = replaced.finish(isWanted);
  const folderBytes = lstatSync(target.directory).blocks * 512;
  return { usedBytes: usedBytes + folderBytes + (isWanted ? skeletonBytes : 0), inodes: inodes + (isWanted ? 2 : 1) };
}

async function unpackInto(
  rootFd: number,
  source: AsyncGenerator<Buffer, void>,
  target: UnpackTarget,
): Promise<UnpackedLayer> {
  const { limits, diffId } = target;
  using replaced = createReplaced(target.directory);
  using tree = createLayerTree(rootFd, limits, replaced);
  using skeleton = createSkeleton(target.directory);
  const reader = createTarReader(tree, limits, { onSkeleton: (bytes) => skeleton.add(bytes) });
  const hash = createDigestHash(diffId);
  let uncompressedBytes = 0;
  for await (const chunk of decompress(source)) {
    uncompressedBytes += chunk.length;
    if (uncompressedBytes > limits.layerBytes)
      throw new LayerError(`the layer is larger than ${limits.layerBytes} bytes when decompressed`);
    hash.update(chunk);
    reader.write(chunk);
    target.onProgress?.(uncompressedBytes);
  }
  reader.finish();
  const actual = finishDigest(diffId, hash);
  if (actual !== diffId) throw new LayerError(`the layer unpacks to ${actual}, the image config says ${diffId}`);
  const usage = tree.finish();
  const own = await keepArchive(target, skeleton, { tree, replaced, sizeBytes: uncompressedBytes });
  return { usedBytes: usage.usedBytes + own.usedBytes, inodes: usage.inodes + own.inodes, uncompressedBytes };
}

async function placeInto(
  rootFd: number,
  files: Iterable<UnpackedFile>,
  { directory, limits, onProgress }: UnpackTarget,
): Promise<UnpackedLayer> {
  using replaced = createReplaced(directory); // stays empty: no two files have one path
  using tree = createLayerTree(rootFd, limits, replaced);
  let uncompressedBytes = 0;
  for (const { path, size, bytes } of files) {
    tree.begin({ ...plainFile, name: path, size });
    for await (const chunk of bytes) {
      tree.data(chunk);
      uncompressedBytes += chunk.length;
      onProgress?.(uncompressedBytes);
    }
    tree.end();
  }
  const { usedBytes, inodes } = tree.finish();
  return { usedBytes: usedBytes + lstatSync(directory).blocks * 512, inodes: inodes + 1, uncompressedBytes };
}

/** What every file of an artifact is. */
const plainFile = {
  kind: "file",
  linkName: "",
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  deviceMajor: 0,
  deviceMinor: 0,
  xattrs: [],
} as const;

/**
 * Unpacks one compressed or plain layer, reading `source` to its end. When it rejects, the caller is to stop the
 * source and to remove the folder, which holds a part of the layer.
 */
export async function unpackLayer(source: AsyncGenerator<Buffer, void>, target: UnpackTarget): Promise<UnpackedLayer> {
  return await withRoot(target, (rootFd) => unpackInto(rootFd, source, target));
}

/** Makes a layer of an artifact's files, each as it came. On failure as {@link unpackLayer}. */
export async function unpackArtifact(files: Iterable<UnpackedFile>, target: UnpackTarget): Promise<UnpackedLayer> {
  return await withRoot(target, (rootFd) => placeInto(rootFd, files, target));
}

async function withRoot<T>(target: UnpackTarget, fill: (rootFd: number) => Promise<T>): Promise<T> {
  const root = join(target.directory, layerRootName);
  mkdirSync(root, { mode: 0o755 });
  const rootFd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    syscalls.fchmod(rootFd, 0o755); // whatever the daemon's umask
    return await fill(rootFd);
  } finally {
    closeSync(rootFd);
  }
}
