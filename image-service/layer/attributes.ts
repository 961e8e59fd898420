import { fstatSync } from "node:fs";

import { SyscallError, syscalls } from "../../native/index.ts";
import type { TarEntry } from "./tar-entry.ts";

export type Attributes = Pick<TarEntry, "mode" | "uid" | "gid" | "mtimeNs" | "xattrs">;

/** Attributes that steer overlayfs or only the host may set: a layer must not bring them along. */
const droppedXattr = /^(?:trusted\.|user\.overlay\.)/;
/** What a file system without the attribute's kind answers. */
const unsupported: ReadonlySet<string> = new Set(["ENOTSUP", "EOPNOTSUPP"]);

function setXattrs(xattrs: TarEntry["xattrs"], set: (name: string, value: Buffer) => void): void {
  for (const [name, value] of xattrs) {
    if (droppedXattr.test(name)) continue;
    try {
      set(name, value);
    } catch (thrown) {
      const isUnsupported = thrown instanceof SyscallError && unsupported.has(thrown.code);
      // A program without its file capability would fail later and far from here.
      if (!isUnsupported || name === "security.capability") throw thrown;
    }
  }
}

/**
 * Owner, mode, time, xattrs: in an order in which no later step takes back an earlier one. Answers the blocks on disk,
 * in bytes.
 */
export function applyToFile(fd: number, attributes: Attributes): number {
  const usedBytes = syscalls.applyAttributes(fd, attributes);
  if (attributes.xattrs.length === 0) return usedBytes;
  setXattrs(attributes.xattrs, (name, value) => syscalls.setxattr(fd, name, value));
  return fstatSync(fd).blocks * 512; // some attributes take a block of their own
}

/** As {@link applyToFile}, for what must not be opened (a device, a fifo) or is a symbolic link. */
export function applyToNode(folderFd: number, base: string, attributes: Attributes, isSymlink: boolean): void {
  syscalls.fchownat(folderFd, base, attributes);
  if (!isSymlink) {
    syscalls.fchmodat(folderFd, base, attributes.mode);
    setXattrs(attributes.xattrs, (name, value) => syscalls.setxattrat(folderFd, base, { name, value }));
  }
  syscalls.utimensat(folderFd, base, { accessNs: attributes.mtimeNs, modifyNs: attributes.mtimeNs });
}

/** Makes everything that lower layers have in the folder disappear. */
export function makeOpaque(folderFd: number): void {
  syscalls.setxattr(folderFd, "trusted.overlay.opaque", Buffer.from("y"));
}
