import { constants } from "node:os";
import { getSystemErrorMap } from "node:util";

/** A system call that failed. `errno` is positive, `code` its name (`"ENOENT"`), `path` what it was applied to, if told. */
export class SyscallError extends Error {
  override readonly name = "SyscallError";
  readonly syscall: string;
  readonly errno: number;
  readonly code: string;
  readonly path: string | undefined;

  constructor(syscall: string, errno: number, path?: string) {
    const { code, text } = describeErrno(errno);
    super(`${syscall}: ${text} (${code})`);
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
    this.path = path;
  }
}

function describeErrno(errno: number): { readonly code: string; readonly text: string } {
  const known = getSystemErrorMap().get(-errno);
  if (known) return { code: known[0], text: known[1] };
  const name = Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
  return { code: name ?? `E${errno}`, text: "system error" };
}

/** The number of an errno name, as this machine numbers it. */
export const errno = constants.errno;

/** Passes a value on and throws a negative errno. */
export function check(syscall: string, result: number, path?: string): number {
  if (result < 0) throw new SyscallError(syscall, -result, path);
  return result;
}

/** As {@link check}, for calls that answer something other than a number when they succeed. */
export function checkValue<T>(syscall: string, result: T | number, path?: string): T {
  if (typeof result === "number") throw new SyscallError(syscall, -result, path);
  return result;
}

/**
 * Refuses what the kernel would resolve against the daemon's working directory.
 * @throws {SyscallError} EINVAL
 */
export function requireAbsolute(syscall: string, path: string): string {
  if (!path.startsWith("/")) throw new SyscallError(syscall, errno.EINVAL, path);
  return path;
}
