import { constants, fstatSync, writeSync } from "node:fs";

import { SyscallError, syscalls } from "../../native/index.ts";
import type { PullLimits } from "../registry/limits.ts";
import { applyToFile, applyToNode, type Attributes, makeOpaque } from "./attributes.ts";
import { describeName, type EntryPath, joinPath, parseEntryPath } from "./entry-path.ts";
import { createFolders, type Folders, makeImplicitFolder } from "./folders.ts";
import { LayerError } from "./layer-error.ts";
import { kindAt, removeAt } from "./removal.ts";
import type { Replaced } from "./replaced.ts";
import { fileTypes, openFlags, openInRoot, succeeds } from "./root-calls.ts";
import type { EntryKind, TarEntry } from "./tar-entry.ts";
import type { TarSink } from "./tar-reader.ts";

/** What unpacking left on disk, as `du` would count it. */
export interface TreeUsage {
  readonly usedBytes: number;
  readonly inodes: number;
}

/** A layer's folder being filled from an archive. */
export interface LayerTree extends TarSink, Disposable {
  /** Gives the folders their owners, modes and times, which unpacking into them would have changed. */
  finish(): TreeUsage;
  /** Whether the contents of all files of the archive are there, or kept aside: whiteouts have none. */
  isComplete(): boolean;
  /** Whether a member took the place of another one. */
  hasReplaced(): boolean;
}

type TreeLimits = Pick<PullLimits, "layerEntries" | "pathDepth" | "folderBytes">;

export const whiteoutPrefix = ".wh.";
const opaqueName = ".wh..wh..opq";
const noContent = Buffer.alloc(0);
/** A longer target does not fit an ext4 or xfs inode. */
const inlineTargetBytes = 59;

/** The file whose content comes next. It is opened only if that comes in several pieces. */
interface NewFile {
  readonly path: EntryPath;
  readonly entry: TarEntry;
  fd: number | undefined;
}

interface State {
  readonly rootFd: number;
  readonly folders: Folders;
  readonly limits: TreeLimits;
  readonly replaced: Pick<Replaced, "keep">;
  /** Folders by path; undefined for one that the archive did not name itself. */
  readonly seen: Map<string, Attributes | undefined>;
  file: NewFile | undefined;
  isComplete: boolean;
  hasReplaced: boolean;
  entries: number;
  folderBytes: number;
  usedBytes: number;
  inodes: number;
}

function countEntry(state: State): void {
  state.entries += 1;
  if (state.entries > state.limits.layerEntries)
    throw new LayerError(`the layer has more than ${state.limits.layerEntries} entries`);
}

/** Keeps what a folder is to have at the end, and nothing else of its member. */
function rememberFolder(state: State, path: string, attributes: Attributes | undefined): void {
  const xattrs = (attributes?.xattrs ?? []).map(([name, value]) => [name, Buffer.from(value)] as const);
  state.folderBytes += xattrs.reduce((sum, [name, value]) => sum + name.length + value.length, path.length);
  if (state.folderBytes > state.limits.folderBytes)
    throw new LayerError(
      `the layer's folders have more than ${state.limits.folderBytes} bytes of names and attributes`,
    );
  state.seen.delete(path); // attributes are applied in the order of the archive
  if (attributes === undefined) return void state.seen.set(path, undefined);
  const { mode, uid, gid, mtimeNs } = attributes;
  state.seen.set(path, { mode, uid, gid, mtimeNs, xattrs });
}

/** Makes room for a new entry: what an earlier one put there goes, unless both are folders. */
function clear(state: State, folderFd: number, path: EntryPath): void {
  state.hasReplaced = true;
  removeAt(folderFd, path.base, joinPath(path.folder, path.base), state.replaced);
  state.folders.forget();
}

/** Runs `make`, and once more after removing what stood in its place. */
function replacing(state: State, path: EntryPath, make: (folderFd: number) => void): void {
  const folderFd = state.folders.open(path.folder);
  if (succeeds(() => make(folderFd), "EEXIST")) return;
  clear(state, folderFd, path);
  make(state.folders.open(path.folder));
}

function addFolder(state: State, path: EntryPath, attributes: Attributes | undefined): void {
  const full = joinPath(path.folder, path.base);
  if (path.base !== "") {
    const folderFd = state.folders.open(path.folder);
    if (!succeeds(() => syscalls.mkdirat(folderFd, path.base, 0o755), "EEXIST")) replaceByFolder(state, folderFd, path);
  }
  rememberFolder(state, full, attributes);
}

function replaceByFolder(state: State, folderFd: number, path: EntryPath): void {
  const kind = kindAt(folderFd, path.base);
  if (kind === "folder") return;
  clear(state, folderFd, path);
  const parentFd = state.folders.open(path.folder);
  syscalls.mkdirat(parentFd, path.base, 0o755);
  // A whiteout before it said that lower layers' entries of this name are gone.
  if (kind === "whiteout") makeOpaque(state.folders.open(joinPath(path.folder, path.base)));
}

function addWhiteout(state: State, path: EntryPath): void {
  if (path.base === opaqueName) {
    makeOpaque(state.folders.open(path.folder));
    return;
  }
  const base = path.base.slice(whiteoutPrefix.length);
  if (base.startsWith(whiteoutPrefix)) return; // AUFS bookkeeping
  if (base === "" || base === "." || base === "..") throw new LayerError("the layer has a whiteout without a name");
  const folderFd = state.folders.open(path.folder);
  const isNew = succeeds(() => syscalls.mknodat(folderFd, base, fileTypes.character, { major: 0, minor: 0 }), "EEXIST");
  if (isNew) state.inodes += 1;
  // Whiteouts speak of lower layers only: what this layer brings stays, a folder without the lower ones' content.
  else if (kindAt(folderFd, base) === "folder") makeOpaque(state.folders.open(joinPath(path.folder, base)));
}

function addHardlink(state: State, path: EntryPath, entry: TarEntry): void {
  const target = parseEntryPath(entry.linkName, state.limits.pathDepth);
  if (target.base === path.base && target.folder === path.folder) return;
  const missing = (): LayerError =>
    new LayerError(`hard link ${describeName(entry.name)} to ${describeName(entry.linkName)}, which the layer lacks`);
  replacing(state, path, (folderFd) => {
    // Both handles come from one cache: the folder was opened last, and the cache is far larger than two.
    const targetFd = state.folders.find(target.folder);
    if (targetFd === undefined || target.base === "") throw missing();
    if (!succeeds(() => syscalls.linkat(targetFd, target.base, folderFd, path.base), "ENOENT")) throw missing();
  });
}

const nodeTypes: Readonly<Partial<Record<EntryKind, number>>> = {
  character: fileTypes.character,
  block: fileTypes.block,
  fifo: fileTypes.fifo,
};

function addNode(state: State, path: EntryPath, entry: TarEntry): void {
  const type = nodeTypes[entry.kind];
  const device = { major: entry.deviceMajor, minor: entry.deviceMinor };
  replacing(state, path, (folderFd) => {
    if (type === undefined) syscalls.symlinkat(entry.linkName, folderFd, path.base);
    else syscalls.mknodat(folderFd, path.base, type | 0o600, device);
  });
  applyToNode(state.folders.open(path.folder), path.base, entry, entry.kind === "symlink");
  state.inodes += 1;
  if (entry.linkName.length > inlineTargetBytes) state.usedBytes += 4096;
}

function addEntry(state: State, entry: TarEntry): void {
  const path = parseEntryPath(entry.name, state.limits.pathDepth);
  if (path.base.startsWith(whiteoutPrefix)) {
    if (entry.size > 0) state.isComplete = false;
    addWhiteout(state, path);
    return;
  }
  if (entry.kind === "directory") {
    addFolder(state, path, entry);
    return;
  }
  if (path.base === "") throw new LayerError("the layer's root is not a folder");
  if (entry.kind === "hardlink") addHardlink(state, path, entry);
  else if (entry.kind === "file") state.file = { path, entry, fd: undefined };
  else addNode(state, path, entry);
}

/** Most files come in one piece, and are made by one call. */
function addContent(state: State, file: NewFile, chunk: Buffer): void {
  const { path, entry } = file;
  if (file.fd === undefined && chunk.length === entry.size && entry.xattrs.length === 0) {
    state.file = undefined;
    replacing(state, path, (folderFd) => {
      state.usedBytes += syscalls.createFile(folderFd, path.base, chunk, entry);
    });
    state.inodes += 1;
    return;
  }
  if (file.fd === undefined)
    replacing(state, path, (folderFd) => {
      file.fd = openInRoot(folderFd, path.base, openFlags.createNew, 0o600);
    });
  const { fd } = file;
  for (let offset = 0; fd !== undefined && offset < chunk.length; ) offset += writeSync(fd, chunk, offset);
}

function endFile(state: State, file: NewFile): void {
  if (file.fd === undefined) addContent(state, file, noContent);
  if (file.fd === undefined) return;
  state.file = undefined;
  try {
    state.usedBytes += applyToFile(file.fd, file.entry);
    state.inodes += 1;
  } finally {
    syscalls.close(file.fd);
  }
}

function finishFolder(state: State, path: string, attributes: Attributes | undefined): void {
  // The entry may have been replaced through another name of its parent; then there is nothing to finish.
  let fd = -1;
  const flags = constants.O_RDONLY | openFlags.directory | openFlags.noFollow;
  const isThere = succeeds(
    () => (fd = openInRoot(state.rootFd, path === "" ? "." : path, flags)),
    "ENOENT",
    "ENOTDIR",
    "ELOOP",
  );
  if (!isThere) return;
  try {
    state.usedBytes += attributes === undefined ? fstatSync(fd).blocks * 512 : applyToFile(fd, attributes);
    state.inodes += 1;
  } finally {
    syscalls.close(fd);
  }
}

/** Says which entry a system call failed on; a full disk keeps its own error. */
function explain(thrown: unknown, entry: TarEntry): unknown {
  const isOurs =
    thrown instanceof SyscallError && !["ENOSPC", "EDQUOT", "EIO", "EMFILE", "ENFILE"].includes(thrown.code);
  return isOurs
    ? new LayerError(`cannot unpack ${describeName(entry.name)}: ${thrown.message}`, { cause: thrown })
    : thrown;
}

/** Nothing is done for a whiteout's content, nor for a file that is whole already. */
function withFile(state: State, work: (file: NewFile) => void): void {
  const { file } = state;
  if (file === undefined) return;
  try {
    work(file);
  } catch (thrown) {
    throw explain(thrown, file.entry);
  }
}

/**
 * Unpacks archive members below `rootFd`, an empty folder that nobody else can reach. Whiteouts become overlayfs's
 * own (a character device 0:0, the opaque attribute). Every path is walked by the kernel inside that root, so a link
 * in the layer may point anywhere and still leads nowhere else.
 */
export function createLayerTree(rootFd: number, limits: TreeLimits, replaced: State["replaced"]): LayerTree {
  const state: State = {
    rootFd,
    limits,
    replaced,
    seen: new Map<string, Attributes | undefined>([["", undefined]]),
    folders: createFolders(rootFd, (parentFd, base, path) => {
      countEntry(state);
      makeImplicitFolder(parentFd, base);
      rememberFolder(state, path, undefined);
    }),
    file: undefined,
    isComplete: true,
    hasReplaced: false,
    entries: 0,
    folderBytes: 0,
    usedBytes: 0,
    inodes: 0,
  };
  return {
    begin(entry) {
      countEntry(state);
      try {
        addEntry(state, entry);
      } catch (thrown) {
        throw explain(thrown, entry);
      }
    },
    data: (chunk) => withFile(state, (file) => addContent(state, file, chunk)),
    end: () => withFile(state, (file) => endFile(state, file)),
    finish() {
      for (const [path, attributes] of state.seen) finishFolder(state, path, attributes);
      return { usedBytes: state.usedBytes, inodes: state.inodes };
    },
    isComplete: () => state.isComplete,
    hasReplaced: () => state.hasReplaced,
    [Symbol.dispose]() {
      state.folders[Symbol.dispose]();
      if (state.file?.fd !== undefined) syscalls.close(state.file.fd);
      state.file = undefined;
    },
  };
}
