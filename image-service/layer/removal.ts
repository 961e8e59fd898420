import { constants, readdirSync } from "node:fs";

import { syscalls } from "../../native/index.ts";
import { fdPath, fileTypes, openFlags, openInRoot } from "./root-calls.ts";

/** What stands at `base`: nothing, a whiteout (character device 0:0), a folder, or anything else. */
export function kindAt(folderFd: number, base: string): "absent" | "whiteout" | "folder" | "other" {
  const status = syscalls.fstatat(folderFd, base);
  if (status === undefined) return "absent";
  const type = status.mode & fileTypes.mask;
  if (type === fileTypes.directory) return "folder";
  const isWhiteout = type === fileTypes.character && status.rdevMajor === 0 && status.rdevMinor === 0;
  return isWhiteout ? "whiteout" : "other";
}

/** Removes `base` and all below it; symbolic links are removed, never followed. */
export function removeAt(folderFd: number, base: string): void {
  if (kindAt(folderFd, base) !== "folder") {
    syscalls.unlinkat(folderFd, base);
    return;
  }
  const fd = openInRoot(folderFd, base, constants.O_RDONLY | openFlags.directory | openFlags.noFollow);
  try {
    for (const name of readdirSync(fdPath(fd))) removeAt(fd, name);
  } finally {
    syscalls.close(fd);
  }
  syscalls.unlinkat(folderFd, base, { directory: true });
}
