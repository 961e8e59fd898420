import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { getMachine } from "./events.ts";
import { errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

/**
 * Replaces a file in one step, with a mode of 0600 unless said. It survives a power cut: written aside, fdatasync,
 * rename, fsync of the folder. Where the end of this process is all that it has to survive, since what it tells of is
 * gone with the power as well, the two syncs are left out, which take several ms where it lies on a disk. What is left
 * beside it then is named `.NAME.HEX.tmp`.
 * @throws {SyscallError} ENOENT without the folder, ENOSPC, …
 */
export async function writeFileAtomically(
  path: string,
  data: Uint8Array | string,
  options: { readonly mode?: number; readonly survives?: "power cut" | "kill" } = {},
): Promise<void> {
  const folder = dirname(requireAbsolute("open", path));
  const name = basename(path);
  const aside = `.${name}.${randomBytes(6).toString("hex")}.tmp`;
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  await getMachine().job("quick", path, (addon, token) =>
    addon.writeFile(token, folder, name, aside, bytes, options.mode ?? 0o600, options.survives === "kill" ? 0 : 1),
  );
}

/** A folder to make; it is this process's user's unless said. */
export interface NewFolder {
  readonly path: string;
  /** Whatever the umask. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
}

const unchanged = 0xffff_ffff;

/**
 * Makes folders in one go, one after the other: later ones may lie in earlier ones.
 * @throws {SyscallError} EEXIST, ENOENT without the parent, …; those before the one that failed are there then.
 */
export async function makeFolders(folders: readonly NewFolder[]): Promise<void> {
  const paths = folders.map(({ path }) => requireAbsolute("mkdir", path));
  const words = folders.flatMap(({ mode, uid, gid }) => [mode, uid ?? unchanged, gid ?? unchanged]);
  const bytes = new Uint8Array(Uint32Array.from(words).buffer);
  await getMachine().job("quick", undefined, (addon, token) => addon.makeFolders(token, paths, bytes));
}

/**
 * Removes files in one go; absent is a success.
 * @throws {SyscallError} the first that could not be removed; all are tried.
 */
export async function removeFiles(paths: readonly string[]): Promise<void> {
  for (const path of paths) requireAbsolute("unlink", path);
  await getMachine().job("quick", undefined, (addon, token) => addon.removeFiles(token, paths));
}

function isAbsence(thrown: unknown): boolean {
  return thrown instanceof SyscallError && (thrown.code === "ENOENT" || thrown.code === "ENOTDIR");
}

async function readFile(root: string | null, path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const { output } = await getMachine().job("quick", path, (addon, token) =>
      addon.readFile(token, path, root, maxBytes),
    );
    return output;
  } catch (thrown) {
    if (isAbsence(thrown)) return undefined;
    throw thrown;
  }
}

/**
 * Reads a regular file whole; `undefined` if it is absent.
 * @throws {SyscallError} EFBIG above `maxBytes`, EISDIR, EINVAL for anything else that is not a regular file.
 */
export async function readFileBounded(path: string, maxBytes: number): Promise<Buffer | undefined> {
  return await readFile(null, requireAbsolute("open", path), maxBytes);
}

/**
 * Reads many small files (a cgroup's, say) in one go on one thread, in the order asked; `undefined` for each that cannot
 * be read or is larger than `maxBytes`.
 */
export async function readFilesBounded(
  paths: readonly string[],
  maxBytes: number,
): Promise<readonly (Buffer | undefined)[]> {
  for (const path of paths) requireAbsolute("open", path);
  const { output } = await getMachine().job("quick", undefined, (addon, token) =>
    addon.readFiles(token, paths, maxBytes),
  );
  return splitReads(output, paths.length);
}

/** What a job that reads many files answers: each one's length or -errno before its bytes. */
export function splitReads(output: Buffer, count: number): readonly (Buffer | undefined)[] {
  let offset = 0;
  return Array.from({ length: count }, () => {
    const length = output.readInt32LE(offset);
    offset += 4;
    if (length < 0) return undefined;
    offset += length;
    return output.subarray(offset - length, offset);
  });
}

/**
 * As {@link readFileBounded}, with every component and symbolic link resolved as if `root` were `/`. Devices and FIFOs
 * are not even opened.
 * @throws {SyscallError} as `readFileBounded`; ENOENT if `root` itself is absent is also `undefined`.
 */
export async function readFileInRoot(
  root: string,
  path: string,
  options: { readonly maxBytes: number },
): Promise<Buffer | undefined> {
  return await readFile(requireAbsolute("open", root), path, options.maxBytes);
}

/**
 * The path on the host of what `path` leads to, with every component and symbolic link resolved as if `root` were `/`;
 * `undefined` if there is nothing. It stays true as long as nobody changes the tree.
 * @throws {SyscallError} ELOOP for links in a circle, …
 */
export async function resolveInRoot(root: string, path: string): Promise<string | undefined> {
  try {
    const { output } = await getMachine().job("slow", path, (addon, token) =>
      addon.resolvePath(token, path, requireAbsolute("open", root)),
    );
    return output.toString("utf8");
  } catch (thrown) {
    if (isAbsence(thrown)) return undefined;
    throw thrown;
  }
}

/**
 * Makes a folder and its missing parents, resolving every link as if `root` were `/`. Mode and owner go to the folders
 * made; those that exist stay as they are.
 * @throws {SyscallError} ENOTDIR if a component is no folder, EINVAL if `path` holds `..`.
 */
export async function mkdirInRoot(
  root: string,
  path: string,
  options: { readonly mode: number; readonly uid?: number; readonly gid?: number },
): Promise<void> {
  if (path.split("/").includes("..")) throw new SyscallError("mkdir", errno.EINVAL, path);
  await getMachine().job("quick", path, (addon, token) =>
    addon.makeDirectories(token, requireAbsolute("open", root), path, options.mode, options.uid ?? 0, options.gid ?? 0),
  );
}

const removeAttempts = 5;

/**
 * Deletes a file or a whole tree; absent is a success. Never follows a symbolic link, never enters another mount.
 * @throws {SyscallError} EXDEV or EBUSY at a mount point (everything beside it may be gone by then).
 */
export async function removeTree(path: string): Promise<void> {
  const plain = requireAbsolute("unlink", path).replace(/\/+$/, "");
  if (plain === "" || [".", ".."].includes(basename(plain))) throw new SyscallError("unlink", errno.EINVAL, path);
  for (let attempt = 1; ; attempt++) {
    try {
      await getMachine().job("bulk", path, (addon, token) => addon.removeTree(token, plain));
      return;
    } catch (thrown) {
      // Somebody was still writing into it: an atomic write, for one, that began before the tree was given up.
      const isFilling = thrown instanceof SyscallError && thrown.code === "ENOTEMPTY";
      if (!isFilling || attempt === removeAttempts) throw thrown;
    }
  }
}

/** What a tree takes on its file system. */
export interface TreeSize {
  readonly usedBytes: number;
  readonly inodes: number;
}

/**
 * Blocks and inodes of a folder and all below it, as `du` counts them: hard links once, symbolic links not followed,
 * other mounts not entered. What vanishes meanwhile is left out, and what is not there is nothing.
 * @throws {SyscallError} ESTALE if a folder is moved elsewhere while its content is being measured.
 */
export async function measureTree(path: string): Promise<TreeSize> {
  const { output } = await getMachine().job("bulk", path, (addon, token) =>
    addon.measureTree(token, requireAbsolute("open", path)),
  );
  return { usedBytes: Number(output.readBigUInt64LE(0)) * 512, inodes: Number(output.readBigUInt64LE(8)) };
}

/**
 * Tells the file system that the folders made in this one have nothing to do with each other, as `chattr +T` does: ext4
 * then looks for room far from the others for each, instead of beside them. Answers whether it understood; others place
 * them as they like.
 * @throws {SyscallError} ENOENT, ENOTDIR
 * @see https://man7.org/linux/man-pages/man1/chattr.1.html
 */
export async function spreadFolders(path: string): Promise<boolean> {
  const { value } = await getMachine().job("quick", path, (addon, token) =>
    addon.spreadFolders(token, requireAbsolute("open", path)),
  );
  return value === 1;
}

/**
 * Writes to a FIFO that somebody reads, without waiting for a reader or for room.
 * @throws {SyscallError} ENXIO if nobody has it open for reading, EAGAIN if it is full, EINVAL if it is no FIFO.
 */
export async function writeFifo(path: string, data: Uint8Array | string): Promise<void> {
  const bytes = typeof data === "string" ? Buffer.from(data) : data;
  await getMachine().job("quick", path, (addon, token) => addon.writeFifo(token, requireAbsolute("open", path), bytes));
}

const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/**
 * Finds a program by name in a colon-separated list of folders (a standard one unless given); a name with a slash is
 * looked at as it is. `undefined` if there is none.
 */
export async function which(name: string, path: string = standardPath): Promise<string | undefined> {
  if (name.includes("/")) return (await isProgram(name)) ? name : undefined;
  for (const folder of path.split(":")) {
    const candidate = join(folder, name);
    if (folder.startsWith("/") && (await isProgram(candidate))) return candidate;
  }
  return undefined;
}
