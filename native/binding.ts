import { createRequire } from "node:module";
import { join } from "node:path";

/** A value, or a negative errno. */
type Result = number;

/** What a job or a ready descriptor reports: its token, a value or -errno, bytes, and the call that failed. */
export type EventHandler = (
  token: number,
  result: number,
  output: Buffer | undefined,
  step: string | undefined,
) => void;

declare const inflaterMark: unique symbol;
/** A gzip stream half inflated; only the addon looks inside. */
export interface Inflater {
  readonly [inflaterMark]: true;
}

/** The addon's functions as `addon/*.c` defines them: none throws, each answers -errno, wrong types are -EINVAL. */
export interface Addon {
  start(handler: EventHandler): Result;
  keepAlive(isWanted: 0 | 1): Result;
  watch(fd: number, token: number, events: number): Result;
  rearm(fd: number, token: number, events: number): Result;
  unwatch(fd: number): Result;

  reap(token: number, pidfd: number): Result;
  pidfdOpen(pid: number): Result;
  pidfdSignal(pidfd: number, signal: number): Result;
  signalGroup(processGroup: number, signal: number): Result;
  raisePriority(nice: number): Result;
  pipe(): [readEnd: number, writeEnd: number] | Result;
  readKernelFile(path: string, limit: number): Buffer | Result;
  close(fd: number): Result;
  read(fd: number, limit: number): Buffer | Result;
  write(fd: number, bytes: Uint8Array): Result;
  eventfd(): Result;
  setWindowSize(fd: number, rows: number, columns: number): Result;

  openat2(dirFd: number, path: string, flags: number, mode: number, resolve: number): Result;
  mkdirat(dirFd: number, path: string, mode: number): Result;
  mknodat(dirFd: number, path: string, mode: number, major: number, minor: number): Result;
  symlinkat(target: string, dirFd: number, path: string): Result;
  linkat(fromFd: number, from: string, toFd: number, to: string, flags: number): Result;
  unlinkat(dirFd: number, path: string, flags: number): Result;
  renameat(fromFd: number, from: string, toFd: number, to: string): Result;
  fchownat(dirFd: number, path: string, uid: number, gid: number, flags: number): Result;
  fchmodat(dirFd: number, path: string, mode: number): Result;
  fchmod(fd: number, mode: number): Result;
  utimensat(
    dirFd: number,
    path: string,
    accessSeconds: number,
    accessNanoseconds: number,
    modifySeconds: number,
    modifyNanoseconds: number,
    flags: number,
  ): Result;
  setxattr(path: string, name: string, value: Uint8Array, follows: 0 | 1): Result;
  getxattr(path: string, name: string, follows: 0 | 1): Buffer | Result;
  listxattr(path: string, follows: 0 | 1): Buffer | Result;
  readlinkat(dirFd: number, path: string): Buffer | Result;
  fstatat(dirFd: number, path: string, flags: number): number[] | Result;
  applyAttributes(
    fd: number,
    mode: number,
    uid: number,
    gid: number,
    modifySeconds: number,
    modifyNanoseconds: number,
  ): Result;
  createFile(
    dirFd: number,
    name: string,
    content: Uint8Array,
    mode: number,
    uid: number,
    gid: number,
    modifySeconds: number,
    modifyNanoseconds: number,
  ): Result;
  tryLock(fd: number): Result;

  connectUnix(path: string, type: number): Result;
  listenUnix(path: string, type: number): Result;
  accept(fd: number): Result;
  socketPair(type: number): [number, number] | Result;
  send(fd: number, bytes: Uint8Array): Result;
  shutdownWrite(fd: number): Result;
  sendFds(fd: number, fds: readonly number[], bytes: Uint8Array): Result;
  recvFds(fd: number, limit: number): [bytes: Buffer, fds: number[]] | Result;
  socketError(fd: number): Result;
  inotifyOpen(path: string, mask: number): Result;

  spawn(
    token: number,
    argvAndEnv: readonly string[],
    argc: number,
    cwd: string | null,
    fds: readonly number[],
    flags: number,
  ): Result;
  writeFile(
    token: number,
    folder: string,
    name: string,
    aside: string,
    data: Uint8Array,
    mode: number,
    isSynced: 0 | 1,
  ): Result;
  readFile(token: number, path: string, root: string | null, limit: number): Result;
  resolvePath(token: number, path: string, root: string): Result;
  readFiles(token: number, paths: readonly string[], limit: number): Result;
  /** Per path three 32-bit words: mode, uid, gid. */
  makeFolders(token: number, paths: readonly string[], modesAndOwners: Uint8Array): Result;
  removeFiles(token: number, paths: readonly string[]): Result;
  makeDirectories(token: number, root: string, path: string, mode: number, uid: number, gid: number): Result;
  writeFifo(token: number, path: string, data: Uint8Array): Result;
  removeTree(token: number, path: string): Result;
  measureTree(token: number, path: string): Result;
  spreadFolders(token: number, path: string): Result;
  releaseMemory(token: number): Result;
  mountOverlay(
    token: number,
    lowerDirs: readonly string[],
    target: string,
    upperDir: string | null,
    workDir: string | null,
    options: string,
  ): Result;
  mount(token: number, source: string, target: string, type: string, data: string, flags: number): Result;
  mountBind(
    token: number,
    source: string,
    target: string,
    userNamespace: string | null,
    recursive: 0 | 1,
    attributes: number,
    propagation: number,
  ): Result;
  pinNamespaces(
    token: number,
    folder: string,
    hostname: string | null,
    kinds: number,
    sysctls: readonly string[],
  ): Result;
  unpinNamespace(token: number, path: string): Result;
  connectInNamespace(token: number, namespace: string, address: string, port: number): Result;
  readNetworkDevices(token: number, namespaces: readonly string[], limit: number): Result;

  inflaterCreate(): Inflater | Result;
  inflate(
    inflater: Inflater,
    input: Uint8Array,
    output: Uint8Array,
  ): [taken: number, given: number, mayEnd: 0 | 1] | Result;
}

const buildDirectory = join(import.meta.dirname, "build");

/** Absolute path of the static helper program, so that a bundle can name `berth-helper pause` as its process. */
export const helperPath: string = join(buildDirectory, "berth-helper");

/**
 * Loads the compiled addon into this thread.
 * @throws {Error} if `native/build.sh` has not been run.
 */
export function loadAddon(): Addon {
  try {
    return createRequire(import.meta.url)(join(buildDirectory, "berth.node")) as Addon;
  } catch (thrown) {
    throw new Error("the native addon cannot be loaded; build it with `sh native/build.sh`", { cause: thrown });
  }
}
