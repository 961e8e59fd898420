import { constants } from "node:fs";
import { getMachine } from "./events.ts";
import { decodeName } from "./names.ts";
import { check, checkValue, errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

/** What fstatat tells. `ino` loses digits above 2^53. */
export interface FileStatus {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly nlink: number;
  readonly ino: number;
  readonly dev: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanoseconds: number;
}

/* linux/openat2.h, fcntl.h */
const resolveInRoot = 0x10;
const resolveNoMagicLinks = 0x02;
const noFollow = 0x100;
const emptyPath = 0x1000;
const removeDirectory = 0x200;
const currentDirectory = -100;
const nsPerSecond = 1_000_000_000n;

function splitTime(ns: bigint): readonly [seconds: number, nanoseconds: number] {
  const remainder = ((ns % nsPerSecond) + nsPerSecond) % nsPerSecond;
  return [Number((ns - remainder) / nsPerSecond), Number(remainder)];
}

function isMissing(result: number): boolean {
  return result === -errno.ENOENT || result === -errno.ENOTDIR;
}

/** Opens a directory of our own by its path, to be the root of what follows. The descriptor is the caller's to close. */
function openDirectory(path: string): number {
  requireAbsolute("openat2", path);
  return check("openat2", getMachine().addon.openat2(currentDirectory, path, constants.O_DIRECTORY, 0, 0), path);
}

/** Opens a path with every link resolved as if the open directory were `/`. The descriptor is the caller's to close. */
function openat2InRoot(rootFd: number, path: string, flags: number, mode = 0): number {
  const resolve = resolveInRoot | resolveNoMagicLinks;
  return check("openat2", getMachine().addon.openat2(rootFd, path, flags, mode, resolve), path);
}

/** As `openat2InRoot`; `undefined` instead of ENOENT and ENOTDIR. */
function openIfPresentInRoot(rootFd: number, path: string, flags: number): number | undefined {
  const fd = getMachine().addon.openat2(rootFd, path, flags, 0, resolveInRoot | resolveNoMagicLinks);
  return isMissing(fd) ? undefined : check("openat2", fd, path);
}

function mkdirat(dirFd: number, path: string, mode: number): void {
  check("mkdirat", getMachine().addon.mkdirat(dirFd, path, mode), path);
}

/** `mode` holds the file type too (S_IFCHR, …). */
function mknodat(dirFd: number, path: string, mode: number, device: { major: number; minor: number }): void {
  check("mknodat", getMachine().addon.mknodat(dirFd, path, mode, device.major, device.minor), path);
}

function symlinkat(target: string, dirFd: number, path: string): void {
  check("symlinkat", getMachine().addon.symlinkat(target, dirFd, path), path);
}

/** Links `from`, itself if it is a symbolic link, to `to`. */
function linkat(fromFd: number, from: string, toFd: number, to: string): void {
  check("linkat", getMachine().addon.linkat(fromFd, from, toFd, to, 0), to);
}

/** Unlinks a name, or with `directory` an empty folder. Answers whether it was there. */
function unlinkat(dirFd: number, path: string, options: { readonly directory?: boolean } = {}): boolean {
  const result = getMachine().addon.unlinkat(dirFd, path, options.directory ? removeDirectory : 0);
  if (result === -errno.ENOENT) return false;
  check("unlinkat", result, path);
  return true;
}

function renameat(fromFd: number, from: string, toFd: number, to: string): void {
  check("renameat", getMachine().addon.renameat(fromFd, from, toFd, to), to);
}

/** Changes the owner of a name, itself if it is a symbolic link; with an empty path, of the descriptor. */
function fchownat(dirFd: number, path: string, owner: { readonly uid: number; readonly gid: number }): void {
  const flags = path === "" ? emptyPath | noFollow : noFollow;
  check("fchownat", getMachine().addon.fchownat(dirFd, path, owner.uid, owner.gid, flags), path);
}

/** Follows a symbolic link in the last component, as the kernel does: not for names in a tree that is not trusted. */
function fchmodat(dirFd: number, path: string, mode: number): void {
  check("fchmodat", getMachine().addon.fchmodat(dirFd, path, mode), path);
}

function fchmod(fd: number, mode: number): void {
  check("fchmod", getMachine().addon.fchmod(fd, mode));
}

/** Sets the times of a name, itself if it is a symbolic link; with an empty path, of the descriptor. */
function utimensat(dirFd: number, path: string, times: { readonly accessNs: bigint; readonly modifyNs: bigint }): void {
  const [accessSeconds, accessNs] = splitTime(times.accessNs);
  const [modifySeconds, modifyNs] = splitTime(times.modifyNs);
  const flags = path === "" ? emptyPath | noFollow : noFollow;
  const { addon } = getMachine();
  check("utimensat", addon.utimensat(dirFd, path, accessSeconds, accessNs, modifySeconds, modifyNs, flags), path);
}

/** What an archive says of one of its files. */
export interface FileAttributes {
  /** Permission bits, with set-uid, set-gid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: bigint;
}

/** Gives an open file its owner, mode and time, as far as it has others. Answers its blocks on disk, in bytes. */
function applyAttributes(fd: number, { mode, uid, gid, mtimeNs }: FileAttributes): number {
  return check("applyAttributes", getMachine().addon.applyAttributes(fd, mode, uid, gid, ...splitTime(mtimeNs)));
}

/** Makes a whole file in one call; `name` must be one component. Answers its blocks on disk, in bytes. EEXIST. */
function createFile(dirFd: number, name: string, content: Uint8Array, attributes: FileAttributes): number {
  if (name.includes("/") || name === "..") throw new SyscallError("createFile", errno.EINVAL, name);
  const { mode, uid, gid, mtimeNs } = attributes;
  const made = getMachine().addon.createFile(dirFd, name, content, mode, uid, gid, ...splitTime(mtimeNs));
  return check("createFile", made, name);
}

/** Sets an attribute of an open file (O_PATH will do), by way of /proc/self/fd. */
function setxattr(fd: number, name: string, value: Uint8Array): void {
  check("setxattr", getMachine().addon.setxattr(`/proc/self/fd/${fd}`, name, value, 1), name);
}

/** Sets an attribute of a name below an open folder, of a symbolic link itself; `name` must be one component. */
function setxattrat(
  dirFd: number,
  entry: string,
  attribute: { readonly name: string; readonly value: Uint8Array },
): void {
  if (entry.includes("/") || entry === "..") throw new SyscallError("lsetxattr", errno.EINVAL, entry);
  const path = `/proc/self/fd/${dirFd}/${entry}`;
  check("lsetxattr", getMachine().addon.setxattr(path, attribute.name, attribute.value, 0), entry);
}

/** `undefined` if the file has no such attribute, or its file system none at all. */
function getxattr(fd: number, name: string): Buffer | undefined {
  const value = getMachine().addon.getxattr(`/proc/self/fd/${fd}`, name, 1);
  if (value === -errno.ENODATA || value === -errno.EOPNOTSUPP) return undefined;
  return checkValue("getxattr", value, name);
}

function listxattr(fd: number): readonly string[] {
  const names = checkValue<Buffer>("listxattr", getMachine().addon.listxattr(`/proc/self/fd/${fd}`, 1));
  return decodeName(names).split("\0").slice(0, -1);
}

/** Bytes, since a link's text is no name of ours. */
function readlinkat(dirFd: number, path: string): Buffer {
  return checkValue<Buffer>("readlinkat", getMachine().addon.readlinkat(dirFd, path), path);
}

/** Of a name, itself if it is a symbolic link (of the descriptor with an empty path); `undefined` if it is absent. */
function fstatat(dirFd: number, path: string): FileStatus | undefined {
  const facts = getMachine().addon.fstatat(dirFd, path, path === "" ? emptyPath | noFollow : noFollow);
  if (typeof facts === "number" && isMissing(facts)) return undefined;
  const list = checkValue("fstatat", facts, path);
  const at = (index: number): number => list[index] ?? 0;
  return {
    mode: at(0),
    uid: at(1),
    gid: at(2),
    size: at(3),
    nlink: at(4),
    ino: at(5),
    dev: at(6),
    rdevMajor: at(7),
    rdevMinor: at(8),
    mtimeSeconds: at(9),
    mtimeNanoseconds: at(10),
  };
}

function close(fd: number): void {
  check("close", getMachine().addon.close(fd));
}

/**
 * Path calls relative to an open directory, for trees that somebody else filled. Synchronous, so for worker threads:
 * the main thread must not wait for a disk. Descriptors are plain numbers, close-on-exec, and work with `node:fs`.
 * All throw {@link SyscallError}.
 * @see https://man7.org/linux/man-pages/man2/openat2.2.html
 */
export const syscalls = {
  openDirectory,
  openat2InRoot,
  openIfPresentInRoot,
  mkdirat,
  mknodat,
  symlinkat,
  linkat,
  unlinkat,
  renameat,
  fchownat,
  fchmodat,
  fchmod,
  utimensat,
  applyAttributes,
  createFile,
  setxattr,
  setxattrat,
  getxattr,
  listxattr,
  readlinkat,
  fstatat,
  close,
} as const;
