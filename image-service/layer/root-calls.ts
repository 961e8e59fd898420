import { constants } from "node:fs";

import { SyscallError, syscalls } from "../../native/index.ts";

export const openFlags = {
  path: 0o10000000, // O_PATH is missing from node:fs
  directory: constants.O_DIRECTORY,
  noFollow: constants.O_NOFOLLOW,
  createNew: constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
} as const;

export const fileTypes = {
  mask: constants.S_IFMT,
  directory: constants.S_IFDIR,
  regular: constants.S_IFREG,
  character: constants.S_IFCHR,
  block: constants.S_IFBLK,
  fifo: constants.S_IFIFO,
} as const;

/** Runs a call whose failure with one of `codes` is an answer, not an error; true when the call succeeded. */
export function succeeds(call: () => void, ...codes: readonly string[]): boolean {
  try {
    call();
    return true;
  } catch (thrown) {
    if (thrown instanceof SyscallError && codes.includes(thrown.code)) return false;
    throw thrown;
  }
}

/** Opens `path` as seen from inside `rootFd`: neither `..` nor a symbolic link leads out of it. */
export function openInRoot(rootFd: number, path: string, flags: number, mode = 0): number {
  return syscalls.openat2InRoot(rootFd, path, flags, mode);
}

/** An existing directory below `rootFd` as a handle for further calls; undefined when it is absent. */
export function openDirectory(rootFd: number, path: string): number | undefined {
  try {
    return openInRoot(rootFd, path === "" ? "." : path, openFlags.path | openFlags.directory);
  } catch (thrown) {
    if (thrown instanceof SyscallError && thrown.code === "ENOENT") return undefined;
    throw thrown;
  }
}

/** How an open file is named to calls that take a path only. */
export function fdPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}
