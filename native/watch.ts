import { getMachine, readable } from "./events.ts";
import { check, requireAbsolute } from "./syscall-error.ts";

/** What can happen to an entry; `"overflow"` means that events were lost and the folder is to be read anew. */
export type DirectoryEventKind =
  | "created"
  | "written"
  | "attributes"
  | "moved-to"
  | "moved-from"
  | "deleted"
  | "directory-gone"
  | "overflow";

/** Something that happened in a watched folder; `name` is empty where it happened to the folder itself. */
export interface DirectoryEvent {
  readonly name: string;
  readonly kinds: readonly DirectoryEventKind[];
}

/* linux/inotify.h */
const kindByBit: readonly (readonly [bit: number, kind: DirectoryEventKind])[] = [
  [0x100, "created"],
  [0x8, "written"],
  [0x4, "attributes"],
  [0x80, "moved-to"],
  [0x40, "moved-from"],
  [0x200, "deleted"],
  [0x400 | 0x800 | 0x2000 | 0x8000, "directory-gone"],
  [0x4000, "overflow"],
];
const onlyDirectory = 0x0100_0000;
const interest = 0x100 | 0x8 | 0x4 | 0x80 | 0x40 | 0x200 | 0x400 | 0x800 | onlyDirectory;
const headerBytes = 16;
const bufferBytes = 64 * 1024;

/** Parses what read(2) gives for an inotify descriptor. */
export function parseEvents(bytes: Buffer): readonly DirectoryEvent[] {
  const events: DirectoryEvent[] = [];
  for (let at = 0; at + headerBytes <= bytes.length; ) {
    const mask = bytes.readUInt32LE(at + 4);
    const length = bytes.readUInt32LE(at + 12);
    const padded = bytes.subarray(at + headerBytes, at + headerBytes + length);
    const end = padded.indexOf(0);
    const kinds = kindByBit.filter(([bit]) => (mask & bit) !== 0).map(([, kind]) => kind);
    if (kinds.length > 0) events.push({ name: padded.subarray(0, end < 0 ? length : end).toString("utf8"), kinds });
    at += headerBytes + length;
  }
  return events;
}

/**
 * Reports what happens in a folder, from the call on; look into the folder after calling, not before. Keeps the event
 * loop alive until it is disposed.
 * @throws {SyscallError} ENOENT, ENOTDIR
 */
export function watchDirectory(path: string, onEvent: (event: DirectoryEvent) => void): AsyncDisposable {
  const { addon, watch } = getMachine();
  const fd = check("inotify_add_watch", addon.inotifyOpen(requireAbsolute("inotify_add_watch", path), interest), path);
  let isOpen = true;
  const watching = watch(fd, readable, () => {
    const bytes = addon.read(fd, bufferBytes);
    watching.arm(readable);
    if (typeof bytes !== "number") for (const event of parseEvents(bytes)) if (isOpen) onEvent(event);
  });
  return {
    [Symbol.asyncDispose]: async () => {
      if (!isOpen) return;
      isOpen = false;
      watching.stop();
      addon.close(fd);
    },
  };
}

/** A counter the kernel can raise, such as for the OOM events of a cgroup v1. */
export interface EventFd extends AsyncDisposable {
  /** To be written into a control file. */
  readonly fd: number;
}

/**
 * Makes an eventfd; `onRaised` hears by how much it was raised. Keeps the event loop alive until it is disposed.
 * @throws {SyscallError}
 */
export function createEventFd(onRaised: (count: bigint) => void): EventFd {
  const { addon, watch } = getMachine();
  const fd = check("eventfd", addon.eventfd());
  let isOpen = true;
  const watching = watch(fd, readable, () => {
    const bytes = addon.read(fd, 8);
    watching.arm(readable);
    if (typeof bytes !== "number") onRaised(bytes.readBigUInt64LE());
  });
  return {
    fd,
    [Symbol.asyncDispose]: async () => {
      if (!isOpen) return;
      isOpen = false;
      watching.stop();
      addon.close(fd);
    },
  };
}
