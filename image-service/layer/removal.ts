import { constants, readdirSync } from "node:fs";

import { decodeName, syscalls } from "../../native/index.ts";
import { describeName, joinPath } from "./entry-path.ts";
import { LayerError } from "./layer-error.ts";
import type { Replaced } from "./replaced.ts";
import { fdPath, fileTypes, openFlags, openInRoot } from "./root-calls.ts";

/** What stands at `base`: nothing, a whiteout (character device 0:0), a folder, a plain file, or anything else. */
export function kindAt(folderFd: number, base: string): "absent" | "whiteout" | "folder" | "file" | "other" {
  const status = syscalls.fstatat(folderFd, base);
  if (status === undefined) return "absent";
  const type = status.mode & fileTypes.mask;
  if (type === fileTypes.directory) return "folder";
  if (type === fileTypes.regular) return "file";
  const isWhiteout = type === fileTypes.character && status.rdevMajor === 0 && status.rdevMinor === 0;
  return isWhiteout ? "whiteout" : "other";
}

/** Each level holds a descriptor. Members that come through links may lie deeper than any path of theirs says. */
const maxDepth = 512;

/**
 * Removes `base` in a folder, which the archive calls `path`, and all below it; files are kept for the archive's sake.
 * Symbolic links are removed, never followed.
 */
export function removeAt(
  folderFd: number,
  base: string,
  path: string,
  { keep, depth = 0 }: Pick<Replaced, "keep"> & { readonly depth?: number },
): void {
  const kind = kindAt(folderFd, base);
  if (kind === "file") return keep(folderFd, base, path);
  if (kind !== "folder") return void syscalls.unlinkat(folderFd, base);
  if (depth > maxDepth)
    throw new LayerError(`the layer replaces a folder that is deeper than ${maxDepth}: ${describeName(path)}`);
  const fd = openInRoot(folderFd, base, constants.O_RDONLY | openFlags.directory | openFlags.noFollow);
  try {
    for (const name of readdirSync(fdPath(fd), { encoding: "buffer" }).map(decodeName))
      removeAt(fd, name, joinPath(path, name), { keep, depth: depth + 1 });
  } finally {
    syscalls.close(fd);
  }
  syscalls.unlinkat(folderFd, base, { directory: true });
}
