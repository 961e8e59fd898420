import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

import { syscalls } from "../../native/index.ts";
import type { PullLimits } from "../registry/limits.ts";
import { decompress } from "./decompress.ts";
import { describeName, fullPath } from "./entry-path.ts";
import { fileChunks } from "./file-chunks.ts";
import { LayerError } from "./layer-error.ts";
import { fdPath, openFlags, openInRoot, succeeds } from "./root-calls.ts";
import { findReplaced } from "./replaced.ts";
import { layerRootName, skeletonPath } from "./skeleton.ts";
import type { TarEntry } from "./tar-entry.ts";
import { createTarReader } from "./tar-reader.ts";

export interface Reassembly {
  /** The layer's folder: the skeleton and the unpacked files. */
  readonly directory: string;
  readonly limits: PullLimits;
  /** Sees each member before its bytes are given. */
  readonly onEntry?: ((rootFd: number, entry: TarEntry) => void) | undefined;
}

/** A file's content: in the layer, or kept aside since another file took its place. */
interface Content {
  readonly entry: TarEntry;
  readonly keptPath: string | undefined;
}

/** The next part of the archive. */
type Part = Buffer | Content;

const readBytes = 256 << 10;

function openContent(rootFd: number, { entry, keptPath }: Content, limits: PullLimits): number {
  if (keptPath !== undefined) return openSync(keptPath, constants.O_RDONLY | openFlags.noFollow);
  let fd = -1;
  const flags = openFlags.path | openFlags.noFollow;
  const isThere = succeeds(
    () => (fd = openInRoot(rootFd, fullPath(entry.name, limits), flags)),
    "ENOENT",
    "ENOTDIR",
    "ELOOP",
  );
  if (!isThere) throw new LayerError(`file ${describeName(entry.name)} is missing`);
  try {
    // Looked at before it is opened: to open a device can be to start it.
    if (!fstatSync(fd).isFile()) throw new LayerError(`file ${describeName(entry.name)} is missing`);
    return openSync(fdPath(fd), constants.O_RDONLY);
  } finally {
    syscalls.close(fd);
  }
}

function* readContent(rootFd: number, content: Content, limits: PullLimits): Generator<Buffer, void> {
  const { entry } = content;
  const fd = openContent(rootFd, content, limits);
  try {
    if (fstatSync(fd).size !== entry.size)
      throw new LayerError(`file ${describeName(entry.name)} has changed its size`);
    for (let left = entry.size; left > 0; ) {
      const chunk = Buffer.allocUnsafe(Math.min(left, readBytes));
      const length = readSync(fd, chunk);
      if (length === 0) throw new LayerError(`file ${describeName(entry.name)} has changed its size`);
      left -= length;
      yield chunk.subarray(0, length);
    }
  } finally {
    closeSync(fd); // by Node, which opened it: a thread that ends closes what Node takes for open
  }
}

async function* partsOf(rootFd: number, { directory, limits, onEntry }: Reassembly): AsyncGenerator<Part, void> {
  let parts: Part[] = [];
  let content: Content | undefined;
  const replacedAt = findReplaced(directory);
  const sink = {
    begin(entry: TarEntry): void {
      onEntry?.(rootFd, entry);
      const isFile = entry.kind === "file" || entry.kind === "hardlink";
      const keptPath = isFile ? replacedAt(fullPath(entry.name, limits)) : undefined;
      if (entry.size > 0) content = { entry, keptPath };
    },
    data: (): void => undefined,
    end: (): void => undefined,
  };
  const onSkeleton = (bytes: Buffer): void => {
    parts.push(bytes); // the header comes here right after its entry went to the sink
    if (content !== undefined) parts.push(content);
    content = undefined;
  };
  const reader = createTarReader(sink, limits, { onSkeleton, isSkeleton: true });
  for await (const chunk of decompress(fileChunks(skeletonPath(directory)))) {
    reader.write(chunk);
    yield* parts;
    parts = [];
  }
  reader.finish();
}

/**
 * The layer's archive, as it was before it was unpacked. The bytes are to be held against the diffID: what changed on
 * the disk since shows there.
 *
 * @throws {LayerError} for a file that is missing or of another size; `ENOENT` when the layer has no skeleton.
 */
export async function* reassembleLayer(reassembly: Reassembly): AsyncGenerator<Buffer, void> {
  const flags = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
  const rootFd = openSync(join(reassembly.directory, layerRootName), flags);
  try {
    for await (const part of partsOf(rootFd, reassembly)) {
      if (Buffer.isBuffer(part)) yield part;
      else yield* readContent(rootFd, part, reassembly.limits);
    }
  } finally {
    closeSync(rootFd);
  }
}
