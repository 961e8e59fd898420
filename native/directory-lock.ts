import { getMachine } from "./events.ts";
import { check, errno } from "./syscall-error.ts";
import { syscalls } from "./syscalls.ts";

/** A directory held against every other process that asks. The kernel lets go of it with the process. */
export type DirectoryLock = Disposable;

/**
 * Locks a directory with flock(2), which leaves no file behind. Answers undefined when another holder, in this process
 * or another, has it.
 *
 * @throws {SyscallError} ENOENT or ENOTDIR where there is no directory.
 */
export function lockDirectory(path: string): DirectoryLock | undefined {
  const { addon } = getMachine();
  const fd = syscalls.openDirectory(path);
  const result = addon.tryLock(fd);
  if (result < 0) addon.close(fd);
  if (result === -errno.EWOULDBLOCK) return undefined;
  check("flock", result, path);
  return { [Symbol.dispose]: () => void addon.close(fd) };
}
