export { helperPath } from "./binding.ts";
export { type CapabilitySets, cgroupLayout, type CgroupLayout, kernelCapabilities } from "./facts.ts";
export { type DirectoryLock, lockDirectory } from "./directory-lock.ts";
export {
  makeFolders,
  measureTree,
  mkdirInRoot,
  type NewFolder,
  readFileBounded,
  readFileInRoot,
  readFilesBounded,
  removeFiles,
  removeTree,
  resolveInRoot,
  spreadFolders,
  type TreeSize,
  which,
  writeFifo,
  writeFileAtomically,
} from "./files.ts";
export { type PathInfo, type PathRequest, readForeignTail, resolveForeignPaths } from "./foreign-paths.ts";
export { createGzipInflater, type GzipInflater } from "./inflate.ts";
export {
  findProcesses,
  isAlive,
  isAsleep,
  isEnded,
  isEnding,
  openProcess,
  type ProcessHandle,
  type ProcessIdentity,
  processIdentity,
} from "./identity.ts";
export { killUntilGone, signalProcess } from "./kill.ts";
export { createKeyedLock, createSemaphore, type KeyedLock, type Semaphore } from "./locks.ts";
export { releaseMemory } from "./memory.ts";
export { decodeName, encodeName } from "./names.ts";
export { bindMount, mountOverlay, mountTmpfs, type Propagation, unmount } from "./mount.ts";
export { endStrayHelpers } from "./stray-helpers.ts";
export { type MountEntry, readMountTable } from "./mount-table.ts";
export { connectInNamespace, type IdMapping, type NamespaceKind } from "./namespaces.ts";
export { type InterfaceCounters, readInterfaceCounters } from "./network-devices.ts";
export { pinNamespaces, pinUserNamespace, unpinNamespace } from "./namespaces.ts";
export { type Child, type Command, type ExitStatus, spawn, type StdioSpec } from "./process.ts";
export { raisePriority } from "./priority.ts";
export { relabel } from "./relabel.ts";
export { run, type RunCommand, type RunResult, within } from "./run.ts";
export { connectSeqpacket, connectThroughRelay, type SeqpacketHandlers, type SeqpacketSocket } from "./sockets.ts";
export { type ConsoleSocket, openConsoleSocket, recvFds, sendDatagram, sendFds, setWindowSize } from "./sockets.ts";
export { NewerSchemaError, refuseNewerSchema } from "./schema.ts";
export { SyscallError } from "./syscall-error.ts";
export { type FileStatus, syscalls } from "./syscalls.ts";
export { untilAborted } from "./until-aborted.ts";
export { createEventFd, type DirectoryEvent, type DirectoryEventKind, type EventFd, watchDirectory } from "./watch.ts";
