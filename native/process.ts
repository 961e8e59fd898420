import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Addon } from "./binding.ts";
import { getMachine, type Machine, readable } from "./events.ts";
import { checkValue, requireAbsolute, SyscallError } from "./syscall-error.ts";
import { syscalls } from "./syscalls.ts";

/**
 * What a descriptor of the child is. `"pipe-write"`: the child writes, we read. `"pipe-read"`: the child reads, we
 * write. `"socket"`: one end of a unix stream pair. `{ fd }`: a copy of ours, which stays open here.
 */
export type StdioSpec = "null" | "pipe-read" | "pipe-write" | "socket" | { readonly fd: number };

/** A program to start; nothing but what is written here reaches it. */
export interface Command {
  /** The first is the absolute path of the program: PATH is not searched (see `which`). */
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Index = descriptor in the child; 3 at least, 32 at most. */
  readonly stdio: readonly StdioSpec[];
  /** Whose the pipes are, who alone may open them anew (as `/dev/stdout`); else they are this process's user's. */
  readonly pipeOwner?: PipeOwner;
  /** Give the child a process group of its own. */
  readonly processGroup?: boolean;
  /** Give the child a session of its own (and with it a process group). */
  readonly session?: boolean;
}

export interface PipeOwner {
  readonly uid: number;
  readonly gid: number;
}

/** How a process ended. */
export type ExitStatus =
  | { readonly kind: "exited"; readonly code: number }
  | { readonly kind: "signaled"; readonly signal: number };

/** A started child. It keeps the event loop alive until it has ended. */
export interface Child {
  readonly pid: number;
  /** Our ends, by descriptor of the child; `undefined` where it has none. Whoever spawns closes them. */
  readonly stdio: readonly (Socket | undefined)[];
  /** Resolves when the child has ended and been reaped; never rejects. */
  readonly exited: Promise<ExitStatus>;
  /** Sends a signal to this very process; does nothing once that has ended. */
  kill(signal: number): void;
  /** Sends a signal to the process group led by the child; does nothing once the child has ended. */
  killGroup(signal: number): void;
}

interface Descriptor {
  readonly childFd: number;
  /** Made for the child and closed here once it has it. */
  readonly isOwned: boolean;
  readonly parentFd?: number;
  readonly direction?: "in" | "out" | "both";
}

const streamType = 1;
const groupFlag = 1;
const sessionFlag = 2;
const retryMs = 50;

function openPipe(addon: Addon, owner: PipeOwner | undefined): readonly [number, number] {
  const ends = checkValue("pipe2", addon.pipe());
  if (owner) syscalls.fchownat(ends[0], "", owner);
  return ends;
}

function openDescriptor(addon: Addon, spec: StdioSpec, owner: PipeOwner | undefined): Descriptor {
  if (typeof spec === "object") return { childFd: spec.fd, isOwned: false };
  switch (spec) {
    case "null":
      return { childFd: -1, isOwned: false };
    case "pipe-read": {
      const [readEnd, writeEnd] = openPipe(addon, owner);
      return { childFd: readEnd, isOwned: true, parentFd: writeEnd, direction: "out" };
    }
    case "pipe-write": {
      const [readEnd, writeEnd] = openPipe(addon, owner);
      return { childFd: writeEnd, isOwned: true, parentFd: readEnd, direction: "in" };
    }
    case "socket": {
      const [ours, theirs] = checkValue("socketpair", addon.socketPair(streamType));
      return { childFd: theirs, isOwned: true, parentFd: ours, direction: "both" };
    }
  }
}

function closeAll(addon: Addon, descriptors: readonly Descriptor[], side: "child" | "parent"): void {
  for (const { childFd, isOwned, parentFd } of descriptors) {
    if (side === "child" && isOwned) addon.close(childFd);
    if (side === "parent" && parentFd !== undefined) addon.close(parentFd);
  }
}

function openSocket({ parentFd, direction }: Descriptor): Socket | undefined {
  if (parentFd === undefined) return undefined;
  return new Socket({ fd: parentFd, readable: direction !== "out", writable: direction !== "in" });
}

interface Started {
  readonly pid: number;
  readonly pidfd: number;
}

async function startChild(
  { job }: Machine,
  { argv, env, cwd, processGroup, session }: Command,
  descriptors: readonly Descriptor[],
): Promise<Started> {
  const flags = (processGroup ? groupFlag : 0) | (session ? sessionFlag : 0);
  const environment = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const fds = descriptors.map(({ childFd }) => childFd);
  const { value, output } = await job("start", argv[0], (addon, token) =>
    addon.spawn(token, [...argv, ...environment], argv.length, cwd ?? null, fds, flags),
  );
  return { pid: output.readInt32LE(), pidfd: value };
}

async function takeStatus({ job }: Pick<Machine, "job">, pidfd: number): Promise<number> {
  for (;;) {
    try {
      return (await job("reap", undefined, (addon, token) => addon.reap(token, pidfd))).value;
    } catch (thrown) {
      const hasNoThread = thrown instanceof SyscallError && thrown.syscall === "job";
      if (!hasNoThread) return 255; // somebody else took it from us, which only a debugger could
    }
    await sleep(retryMs);
  }
}

/** How a child ended that has; closes its pidfd. */
export async function reap(machine: Pick<Machine, "addon" | "job">, pidfd: number): Promise<ExitStatus> {
  const status = await takeStatus(machine, pidfd);
  machine.addon.close(pidfd);
  return status >= 256 ? { kind: "signaled", signal: status - 256 } : { kind: "exited", code: status };
}

function makeChild(machine: Machine, { pid, pidfd }: Started, stdio: Child["stdio"]): Child {
  const { addon } = machine;
  const { promise, resolve } = Promise.withResolvers<ExitStatus>();
  let hasEnded = false;
  const exitWatch = machine.watch(pidfd, readable, () => {
    // Until it is reaped its pid cannot be given to another process; from here on no signal is sent.
    hasEnded = true;
    exitWatch.stop();
    resolve(reap(machine, pidfd));
  });
  return {
    pid,
    stdio,
    exited: promise,
    kill: (signal) => {
      if (!hasEnded) addon.pidfdSignal(pidfd, signal);
    },
    killGroup: (signal) => {
      if (!hasEnded) addon.signalGroup(pid, signal);
    },
  };
}

/**
 * Starts a program without copying this process, whatever its size, and without making this thread wait for a processor
 * on the child's behalf. The child has the descriptors named and no other, the environment given and nothing else,
 * default signal dispositions, an empty signal mask and umask 022.
 *
 * @throws {SyscallError} if it cannot be started: `execve` ENOENT or EACCES, `chdir`; EINVAL for a relative path.
 */
export async function spawn(command: Command): Promise<Child> {
  const machine = getMachine();
  const { addon } = machine;
  requireAbsolute("execve", command.argv[0]);
  const descriptors: Descriptor[] = [];
  let started: Started;
  try {
    for (const spec of command.stdio) descriptors.push(openDescriptor(addon, spec, command.pipeOwner));
    started = await startChild(machine, command, descriptors);
  } catch (thrown) {
    closeAll(addon, descriptors, "parent");
    throw thrown;
  } finally {
    closeAll(addon, descriptors, "child");
  }
  return makeChild(machine, started, descriptors.map(openSocket));
}
