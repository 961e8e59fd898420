import { readdir } from "node:fs/promises";
import { type Addon } from "./binding.ts";
import { getMachine, readable } from "./events.ts";
import { check, errno, SyscallError } from "./syscall-error.ts";

/** A process beyond doubt: a pid alone may be given to another process later. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, in clock ticks since boot. */
  readonly startTime: string;
}

/** A process that is not our child, held so that its pid cannot mean another. */
export interface ProcessHandle extends Disposable, AsyncDisposable {
  readonly identity: ProcessIdentity;
  /** Resolves when the process has ended (a zombie has). Rejects if the handle is disposed before. */
  readonly exited: Promise<void>;
  /** Sends a signal; does nothing if the process has ended. @throws {SyscallError} EPERM */
  signal(signal: number): void;
}

interface ProcessFacts {
  readonly state: string;
  /** PF_* of the kernel's <linux/sched.h>. */
  readonly flags: number;
  readonly threads: number;
  readonly startTime: string;
}

function readFacts(addon: Addon, pid: number): ProcessFacts | undefined {
  if (!Number.isSafeInteger(pid) || pid < 1) return undefined;
  const stat = addon.readKernelFile(`/proc/${pid}/stat`, 4096);
  if (typeof stat === "number") return undefined;
  // The second field is the command's name, which may hold spaces and brackets; what follows the last bracket is safe.
  const text = stat.toString("latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTime = fields[19];
  if (state === undefined || startTime === undefined) return undefined;
  return { state, flags: Number(fields[6]), threads: Number(fields[17]), startTime };
}

/** The state is that of the first thread, and others may live on without it, in all that the process has: a cgroup, say. */
export function isEnded({ state, threads }: Pick<ProcessFacts, "state" | "threads">): boolean {
  return state === "X" || (state === "Z" && threads <= 1);
}

/** What `look` finds at the processes that are there; one for which it answers nothing is left out. */
export async function findProcesses<T>(look: (pid: number) => Promise<T | undefined>): Promise<readonly T[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  return (await Promise.all(pids.map(look))).filter((found) => found !== undefined);
}

/** The identity of a living process, `undefined` if there is none of that pid (or only a zombie). */
export async function processIdentity(pid: number): Promise<ProcessIdentity | undefined> {
  const facts = readFacts(getMachine().addon, pid);
  return facts === undefined || isEnded(facts) ? undefined : { pid, startTime: facts.startTime };
}

/** Whether this very process is there and no zombie. Synchronous and cheap (one small read of /proc). */
export function isAlive(identity: ProcessIdentity): boolean {
  const facts = readFacts(getMachine().addon, identity.pid);
  return facts !== undefined && !isEnded(facts) && facts.startTime === identity.startTime;
}

const exiting = 0x4;

/**
 * Whether this very process has ended or is about to: the init of a PID namespace waits for all others in there, as long
 * as their parents take to see to them.
 */
export function isEnding(identity: ProcessIdentity): boolean {
  const facts = readFacts(getMachine().addon, identity.pid);
  if (facts === undefined || isEnded(facts) || facts.startTime !== identity.startTime) return true;
  return (facts.flags & exiting) !== 0;
}

/** Whether this very process sleeps: it neither runs, nor is stopped, nor has ended. Cheap as `isAlive`. */
export function isAsleep(identity: ProcessIdentity): boolean {
  const facts = readFacts(getMachine().addon, identity.pid);
  return facts?.startTime === identity.startTime && (facts.state === "S" || facts.state === "D");
}

/** No process, or the number is a thread's by now, which Linux 6.16 and later call ENOENT and earlier ones EINVAL. */
function isNobody(error: number): boolean {
  return error === errno.ESRCH || error === errno.ENOENT || error === errno.EINVAL;
}

/**
 * Takes hold of a living process; `undefined` if it has ended. Keeps the event loop alive until it ends or the handle is
 * disposed.
 * @throws {SyscallError} EMFILE
 */
export function openProcess(identity: ProcessIdentity): ProcessHandle | undefined {
  const { addon, watch } = getMachine();
  const pidfd = addon.pidfdOpen(identity.pid);
  if (isNobody(-pidfd)) return undefined;
  check("pidfd_open", pidfd);
  if (!isAlive(identity)) {
    addon.close(pidfd);
    return undefined;
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => undefined); // nobody need be waiting when the handle is disposed
  let isOpen = true;
  const dispose = (): void => {
    if (!isOpen) return;
    isOpen = false;
    exitWatch.stop();
    addon.close(pidfd);
    reject(new Error("process handle was disposed"));
  };
  const exitWatch = watch(pidfd, readable, () => {
    resolve();
    dispose();
  });
  return {
    identity,
    exited: promise,
    signal: (number) => {
      const result = isOpen ? addon.pidfdSignal(pidfd, number) : 0;
      if (result < 0 && result !== -errno.ESRCH) throw new SyscallError("pidfd_send_signal", -result);
    },
    [Symbol.dispose]: dispose,
    [Symbol.asyncDispose]: async () => dispose(),
  };
}
