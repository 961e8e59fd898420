import type { Logger } from "../cri-api/index.ts";
import { untilAborted } from "../native/index.ts";
import { isLive } from "./container.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { ExitWatch } from "./exit-watch.ts";
import type { RecordStore } from "./record-store.ts";
import { runtimeOf } from "./runtimes.ts";
import type { Runtimes } from "./runtimes.ts";

/** Brings containers to their end, one loop per container, whatever becomes of the callers that asked for it. */
export interface StopLoops {
  /**
   * Sends the stop signal, waits, kills at the deadline and resolves when the container has ended; at once if it had.
   * A later call can only bring the deadline forward. The loop goes on when `signal` makes its caller leave.
   */
  stop(id: string, graceMs: number, signal: AbortSignal): Promise<void>;
  /** Whether the grace period is over: nothing new is to be run in a container that is being killed. */
  isKilling(id: string): boolean;
  /** Goes on with the stop that the daemon before had begun, if it had: the signal is sent, the deadline stands. */
  resume(container: LiveContainer): void;
}

interface StopLoop {
  readonly ended: Promise<void>;
  isKilling(): boolean;
  /** Brings the kill forward to `graceMs` from now, if that is earlier than planned. */
  shorten(graceMs: number): void;
}

interface StopLoopParts {
  readonly containers: RecordStore<Container>;
  readonly runtimes: Runtimes;
  readonly exits: ExitWatch;
  readonly log: Logger;
}

const sigkill = 9;
const firstKillPauseMs = 20;
const longestKillPauseMs = 60_000;
/** setTimeout's own limit; a longer grace period is as good as this one. */
const longestTimerMs = 2_147_483_647;
/** A container that ends sooner needs no deadline on disk, and its end no second write to wait for. */
const quickEndMs = 100;

export function createStopLoops(parts: StopLoopParts): StopLoops {
  const loops = new Map<string, StopLoop>();

  function begin(container: LiveContainer, graceMs: number): StopLoop {
    const { promise: deadline, resolve: killNow } = Promise.withResolvers<void>();
    let [timer, noteTimer]: (NodeJS.Timeout | undefined)[] = [];
    let killAtNs = container.killAtNs;
    const loop: StopLoop = {
      isKilling: () => killAtNs !== undefined && process.hrtime.bigint() >= killAtNs,
      ended: bringToEnd(container, graceMs, deadline).finally(() => {
        clearTimeout(timer);
        clearTimeout(noteTimer);
        loops.delete(container.id);
      }),
      shorten(laterGraceMs) {
        const nowNs = process.hrtime.bigint();
        const wantedAtNs = nowNs + BigInt(Math.ceil(laterGraceMs * 1e6));
        if (killAtNs === undefined || wantedAtNs < killAtNs) killAtNs = wantedAtNs;
        else if (timer) return;
        const deadlineNs = killAtNs;
        clearTimeout(timer);
        timer = setTimeout(killNow, Math.max(Number(deadlineNs - nowNs) / 1e6, 0));
        clearTimeout(noteTimer);
        noteTimer = setTimeout(() => void noteDeadline(parts, container.id, deadlineNs), quickEndMs);
      },
    };
    loop.ended.catch(() => undefined); // reported to whoever still waits
    loop.shorten(graceMs);
    loops.set(container.id, loop);
    return loop;
  }

  async function bringToEnd(container: LiveContainer, graceMs: number, deadline: Promise<void>): Promise<void> {
    const ended = parts.exits.ended(container.id).then(() => true);
    ended.catch(() => undefined); // looked at only between the signals
    const runtime = runtimeOf(parts, container.runtime);
    if (graceMs > 0 && container.state === "running") {
      const isToldAlready = container.killAtNs !== undefined;
      if (!isToldAlready) await runtime.kill(container.id, container.init, container.stopSignal);
      if (await Promise.race([ended, deadline.then(() => false)])) return;
    }
    for (let pauseMs = firstKillPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestKillPauseMs)) {
      await runtime.kill(container.id, container.init, sigkill);
      if (await Promise.race([ended, after(pauseMs)])) return;
      if (pauseMs === longestKillPauseMs) parts.log.warn({ containerId: container.id }, "container survives SIGKILL");
    }
  }

  return {
    async stop(id, graceMs, signal) {
      const container = parts.containers.get(id);
      if (!container || !isLive(container)) return;
      const loop = loops.get(id);
      const limitedMs = Math.min(graceMs, longestTimerMs);
      if (loop) loop.shorten(limitedMs);
      await untilAborted((loop ?? begin(container, limitedMs)).ended, signal);
    },
    resume(container) {
      if (container.killAtNs !== undefined) begin(container, longestTimerMs);
    },
    isKilling: (id) => loops.get(id)?.isKilling() ?? false,
  };
}

/** For the next daemon; without it, only a caller that asks again has the container killed. */
async function noteDeadline({ containers, log }: StopLoopParts, id: string, killAtNs: bigint): Promise<void> {
  try {
    await containers.update(id, (current) => (isLive(current) ? { ...current, killAtNs } : current));
  } catch (thrown) {
    log.warn({ containerId: id, err: String(thrown) }, "deadline of a stop not written down");
  }
}

async function after(ms: number): Promise<false> {
  const { promise, resolve } = Promise.withResolvers<false>();
  setTimeout(resolve, ms, false).unref();
  return await promise;
}
