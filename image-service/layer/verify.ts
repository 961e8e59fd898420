import { constants } from "node:fs";

import { decodeName, type FileStatus, SyscallError, syscalls } from "../../native/index.ts";
import type { Digest } from "../digest.ts";
import type { PullLimits } from "../registry/limits.ts";
import { checkedBytes } from "./checked-bytes.ts";
import { describeName, type EntryPath, fullPath, joinPath, parseEntryPath } from "./entry-path.ts";
import { LayerError } from "./layer-error.ts";
import { reassembleLayer } from "./reassemble.ts";
import { fileTypes, openDirectory, succeeds } from "./root-calls.ts";
import type { EntryKind, TarEntry } from "./tar-entry.ts";
import { whiteoutPrefix } from "./tree.ts";

export interface LayerToVerify {
  readonly directory: string;
  readonly diffId: Digest;
  readonly limits: PullLimits;
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

/** One is told; the rest only has to outlast those that later members make void. */
const maxFaults = 1024;

const typeBits: Readonly<Record<EntryKind, number | undefined>> = {
  file: constants.S_IFREG,
  directory: fileTypes.directory,
  symlink: constants.S_IFLNK,
  character: fileTypes.character,
  block: fileTypes.block,
  fifo: fileTypes.fifo,
  hardlink: undefined, // that of its target
};

function isAsArchived(status: FileStatus, entry: TarEntry): boolean {
  const type = typeBits[entry.kind];
  if (type === undefined) return true;
  const hasMode = entry.kind === "symlink" || (status.mode & 0o7777) === entry.mode;
  const isOwned = status.uid === entry.uid && status.gid === entry.gid;
  return (status.mode & fileTypes.mask) === type && hasMode && isOwned;
}

/** Whiteouts and links to themselves are nothing to look for. */
function makesNothing(entry: TarEntry, { folder, base }: EntryPath, limits: PullLimits): boolean {
  if (base.startsWith(whiteoutPrefix)) return true;
  return entry.kind === "hardlink" && fullPath(entry.linkName, limits) === joinPath(folder, base);
}

/** What is wrong with a member on the disk, besides its content. */
function faultOf(rootFd: number, entry: TarEntry, path: EntryPath): string | undefined {
  let folderFd: number | undefined;
  succeeds(() => (folderFd = openDirectory(rootFd, path.folder)), "ENOTDIR", "ELOOP");
  if (folderFd === undefined) return "is missing";
  try {
    const status = syscalls.fstatat(folderFd, path.base);
    if (status === undefined) return "is missing";
    if (!isAsArchived(status, entry)) return "has changed its kind, mode or owner";
    const isLink = entry.kind === "symlink";
    if (isLink && decodeName(syscalls.readlinkat(folderFd, path.base)) !== entry.linkName) return "points elsewhere";
    return undefined;
  } finally {
    syscalls.close(folderFd);
  }
}

/** Holds the archive that the files on the disk make against the layer's digest. */
async function verifyContent(layer: LayerToVerify, faults: Map<string, string>): Promise<void> {
  const { directory, diffId, limits, onProgress } = layer;
  let bytes = 0;
  const onEntry = (rootFd: number, entry: TarEntry): void => {
    const place = parseEntryPath(entry.name, limits.pathDepth);
    const path = joinPath(place.folder, place.base);
    const fault = makesNothing(entry, place, limits) ? undefined : faultOf(rootFd, entry, place);
    // The last member of a path is the one that counts, and takes along what was below it, unless it is a folder.
    faults.delete(path);
    if (entry.kind !== "directory")
      for (const below of faults.keys()) if (below.startsWith(`${path}/`)) faults.delete(below);
    if (fault !== undefined && faults.size < maxFaults) faults.set(path, fault);
  };
  for await (const chunk of checkedBytes(reassembleLayer({ directory, limits, onEntry }), diffId, "its content")) {
    bytes += chunk.length;
    onProgress?.(bytes);
  }
}

/**
 * Compares a layer on the disk with what was unpacked: the content of every file by the layer's digest, kinds, modes,
 * owners and link targets by the archive's headers.
 *
 * @returns what is wrong with it; nothing when it is whole.
 */
export async function verifyLayer(layer: LayerToVerify): Promise<string | undefined> {
  const faults = new Map<string, string>();
  try {
    await verifyContent(layer, faults);
  } catch (thrown) {
    if (thrown instanceof LayerError) return thrown.message;
    if (thrown instanceof SyscallError) return thrown.message; // a folder is a folder no more
    if (thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT") return "its folder is missing";
    throw thrown;
  }
  const [first] = faults;
  return first === undefined ? undefined : `${describeName(first[0])} ${first[1]}`;
}
