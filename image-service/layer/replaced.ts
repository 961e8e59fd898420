import { createHash } from "node:crypto";
import { closeSync, constants, lstatSync, mkdirSync, openSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

import { encodeName, syscalls } from "../../native/index.ts";

/** Blocks on disk in bytes, and inodes. */
interface Usage {
  readonly usedBytes: number;
  readonly inodes: number;
}

/** Files in whose place a later member of the archive has come: no layer shows them, but its archive has them. */
export interface Replaced extends Disposable {
  /** Moves the file that stands at `path` out of the tree. */
  keep(folderFd: number, base: string, path: string): void;
  /** Removes them all where they are of no use; answers what a layer's usage grows by. */
  finish(areWanted: boolean): Usage;
}

function folderIn(directory: string): string {
  return join(directory, "replaced");
}

/** Counts the files of one path: the first one is 0. */
function createCounts(): (path: string) => number {
  const counts = new Map<string, number>();
  return (path) => {
    const count = counts.get(path) ?? 0;
    counts.set(path, count + 1);
    return count;
  };
}

function nameOf(path: string, count: number): string {
  return `${createHash("sha256").update(encodeName(path)).digest("hex")}-${count}`;
}

export function createReplaced(directory: string): Replaced {
  const folder = folderIn(directory);
  const countOf = createCounts();
  let fd: number | undefined;

  function open(): number {
    mkdirSync(folder, { mode: 0o700 });
    return openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  }
  return {
    keep(folderFd, base, path) {
      syscalls.renameat(folderFd, base, (fd ??= open()), nameOf(path, countOf(path)));
    },
    finish(areWanted) {
      if (fd === undefined) return { usedBytes: 0, inodes: 0 };
      if (areWanted) return { usedBytes: lstatSync(folder).blocks * 512, inodes: 1 };
      const files = readdirSync(folder).map((name) => lstatSync(join(folder, name)));
      const freed = files.filter(({ nlink }) => nlink === 1);
      rmSync(folder, { recursive: true });
      return { usedBytes: -freed.reduce((sum, { blocks }) => sum + blocks * 512, 0), inodes: -freed.length };
    },
    [Symbol.dispose]() {
      if (fd !== undefined) closeSync(fd);
    },
  };
}

/**
 * Finds replaced files again: to be asked for every file and hard link of the archive, in its order; answers the path of
 * the one that came to stand there then, or undefined while it still does.
 */
export function findReplaced(directory: string): (path: string) => string | undefined {
  const folder = folderIn(directory);
  const countOf = createCounts();
  const isThere = lstatSync(folder, { throwIfNoEntry: false }) !== undefined;
  const names: ReadonlySet<string> = new Set(isThere ? readdirSync(folder) : []);
  return (path) => {
    if (!isThere) return undefined;
    const name = nameOf(path, countOf(path));
    return names.has(name) ? join(folder, name) : undefined;
  };
}
