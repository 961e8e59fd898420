import { syscalls } from "../../native/index.ts";
import { joinPath } from "./entry-path.ts";
import { openDirectory } from "./root-calls.ts";

const maxOpenFolders = 128;

/** The folders of one layer, opened once and kept open while they are in use. */
export interface Folders extends Disposable {
  /** A handle on the folder, making it and its parents if they are absent. Valid until the next call. */
  open(path: string): number;
  /** A handle on the folder, or undefined if it is absent. Valid until the next call. */
  find(path: string): number | undefined;
  /** To be called when something that may be a folder, or a link to one, was removed. */
  forget(): void;
}

/**
 * @param onMissing Makes the folder `base` in the folder behind `parentFd`; the archive named it only as a parent.
 */
export function createFolders(
  rootFd: number,
  onMissing: (parentFd: number, base: string, path: string) => void,
): Folders {
  const open = new Map<string, number>();

  function remember(path: string, fd: number): number {
    open.set(path, fd);
    for (const [oldest, oldFd] of open) {
      if (open.size <= maxOpenFolders) break;
      open.delete(oldest);
      syscalls.close(oldFd);
    }
    return fd;
  }
  function find(path: string): number | undefined {
    if (path === "") return rootFd;
    const known = open.get(path);
    if (known !== undefined) {
      open.delete(path); // put it at the end: the map's order is that of use
      open.set(path, known);
      return known;
    }
    const fd = openDirectory(rootFd, path);
    return fd === undefined ? undefined : remember(path, fd);
  }
  function openOrMake(path: string): number {
    const found = find(path);
    if (found !== undefined) return found;
    const cut = path.lastIndexOf("/");
    const parent = cut === -1 ? "" : path.slice(0, cut);
    const base = path.slice(cut + 1);
    onMissing(openOrMake(parent), base, joinPath(parent, base));
    const fd = openDirectory(rootFd, path);
    if (fd === undefined) throw new Error("a folder vanished while a layer was unpacked");
    return remember(path, fd);
  }
  function forget(): void {
    for (const fd of open.values()) syscalls.close(fd);
    open.clear();
  }
  return { open: openOrMake, find, forget, [Symbol.dispose]: forget };
}

/** Makes a folder that the archive uses without naming it; a dangling link in its place is an error (EEXIST). */
export function makeImplicitFolder(parentFd: number, base: string): void {
  syscalls.mkdirat(parentFd, base, 0o755);
  syscalls.fchmodat(parentFd, base, 0o755); // whatever the daemon's umask
}
