import { runHelper } from "./helper.ts";
import { requireAbsolute } from "./syscall-error.ts";

/** A volume may hold millions of files. */
const deadlineMs = 600_000;

/**
 * Gives files, and folders with all below them, a SELinux label. Paths are real ones: no link is followed. What lies on
 * a file system without labels, or goes meanwhile, is passed over. In the helper, since a volume may be slow or dead.
 *
 * @throws {SyscallError} with the one of the paths that failed: EINVAL for a label unknown to the policy, EROFS,
 * ENAMETOOLONG below a thousand folders, ELOOP where a path has become a link.
 * @throws `options.signal.reason`, or a TimeoutError after ten minutes
 */
export async function relabel(
  paths: readonly string[],
  label: string,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  if (paths.length === 0) return;
  await runHelper("relabel", ["relabel", label, ...paths.map((path) => requireAbsolute("setxattr", path))], {
    input: Buffer.alloc(0),
    subject: label,
    signal: options.signal,
    deadlineMs,
  });
}
