import { type Addon, loadAddon } from "./binding.ts";
import { createSemaphore, type Semaphore } from "./locks.ts";
import { check, SyscallError } from "./syscall-error.ts";

/** epoll's bits, of which a descriptor is watched for one or both. */
export const readable = 1;
export const writable = 4;

/** What a finished job hands over. */
export interface JobResult {
  readonly value: number;
  readonly output: Buffer;
}

/** A descriptor under watch. Each arming reports once. */
export interface Watch {
  arm(interest: number): void;
  /** To be called before the descriptor is closed. Idempotent. */
  stop(): void;
}

/** Quick jobs, and starting programs, must not stand in line behind slow ones (deleting a tree of a million files). */
export type Lane = "quick" | "start" | "reap" | "slow" | "bulk";

/** The addon of this thread and the one way its threads report back. */
export interface Machine {
  readonly addon: Addon;
  /** Calls back on this thread when the descriptor is ready. While watched it keeps the event loop alive. */
  readonly watch: (fd: number, interest: number, onReady: () => void) => Watch;
  /** Runs a C job on a thread of its own. `path` is what a failure names. */
  readonly job: (
    lane: Lane,
    path: string | undefined,
    begin: (addon: Addon, token: number) => number,
  ) => Promise<JobResult>;
}

type Report = (result: number, output: Buffer | undefined, step: string | undefined) => void;

/* One per thread for as long as the thread lives, as the addon itself is: there is nothing to hand in or to close. */
let machine: Machine | undefined;

/** The addon, loaded at the first need: importing this room touches nothing. */
export function getMachine(): Machine {
  machine ??= createMachine(loadAddon());
  return machine;
}

/** The table of who waits for what; the event loop stays while it has entries. */
function createReports(addon: Addon): { add(report: Report): number; remove(token: number): void } {
  const reports = new Map<number, Report>();
  let nextToken = 1;
  check(
    "epoll_create",
    addon.start((token, result, output, step) => {
      try {
        reports.get(token)?.(result, output, step);
      } catch (thrown) {
        // Below this frame is C, which would drop it: a handler's mistake must be as loud as any other.
        queueMicrotask(() => {
          throw thrown;
        });
      }
    }),
  );
  return {
    add(report) {
      while (reports.has(nextToken)) nextToken = (nextToken % 0xffff_ffff) + 1;
      const token = nextToken;
      nextToken = (nextToken % 0xffff_ffff) + 1;
      reports.set(token, report);
      if (reports.size === 1) addon.keepAlive(1);
      return token;
    },
    remove(token) {
      if (reports.delete(token) && reports.size === 0) addon.keepAlive(0);
    },
  };
}

function createMachine(addon: Addon): Machine {
  const reports = createReports(addon);
  const lanes: Readonly<Record<Lane, Semaphore>> = {
    quick: createSemaphore(16),
    start: createSemaphore(16),
    reap: createSemaphore(4),
    slow: createSemaphore(24),
    bulk: createSemaphore(4),
  };

  function startJob(path: string | undefined, begin: (addon: Addon, token: number) => number): Promise<JobResult> {
    const { promise, resolve, reject } = Promise.withResolvers<JobResult>();
    const token = reports.add((result, output, step) => {
      reports.remove(token);
      if (result >= 0) resolve({ value: result, output: output ?? Buffer.alloc(0) });
      else reject(new SyscallError(step ?? "job", -result, output?.toString() ?? path));
    });
    const started = begin(addon, token);
    if (started < 0) {
      reports.remove(token);
      reject(new SyscallError("job", -started, path));
    }
    return promise;
  }

  return {
    addon,
    watch: (fd, interest, onReady) => {
      const token = reports.add(onReady);
      const added = addon.watch(fd, token, interest);
      if (added < 0) reports.remove(token);
      check("epoll_ctl", added);
      let isWatched = true;
      return {
        arm: (wanted) => {
          if (isWatched) check("epoll_ctl", addon.rearm(fd, token, wanted));
        },
        stop: () => {
          if (isWatched) addon.unwatch(fd);
          isWatched = false;
          reports.remove(token);
        },
      };
    },
    job: (lane, path, begin) => lanes[lane].run(undefined, () => startJob(path, begin)),
  };
}
