import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../cri-api/index.ts";
import type { Logger } from "../cri-api/index.ts";
import { openProcess, untilAborted } from "../native/index.ts";
import { endContainer, endingOf } from "./container-ending.ts";
import { isLive } from "./container.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { Layout } from "./layout.ts";
import { lastWordsOf } from "./last-words.ts";
import type { RecordStore } from "./record-store.ts";
import { runtimeOf } from "./runtimes.ts";
import type { Runtimes } from "./runtimes.ts";
import { advanceSandbox, sandboxBase } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";

/** Notices the end of every process that the room answers for, and writes it into the records. */
export interface ExitWatch extends AsyncDisposable {
  /** Waits for the container's end from now on, and tries until it is written down. Idempotent. */
  watch(container: LiveContainer): void;
  /** Resolves when the record says `exited`, or is gone. @throws {CriError} `Unavailable` when the daemon ends first. */
  ended(id: string): Promise<void>;
  /**
   * Starts a container. An end that is noticed meanwhile is written down after what the start has to say: nobody sees
   * a container stop before it started.
   */
  whileStarting(id: string, start: () => Promise<void>): Promise<void>;
  /** A pod whose pause process dies is not ready any more. */
  watchPause(sandbox: SandboxIn<"ready">): void;
}

interface ExitWatchParts {
  readonly sandboxes: RecordStore<Sandbox>;
  readonly containers: RecordStore<Container>;
  readonly runtimes: Runtimes;
  readonly layout: Layout;
  readonly log: Logger;
}

const sigkill = 9;
/** A runtime that has not returned so long after the container's end waits for what will not come. */
const startSlackMs = 5_000;
const firstRetryMs = 100;
const longestRetryMs = 10_000;

export function createExitWatch(parts: ExitWatchParts): ExitWatch {
  const watches = createWatches(parts.log);
  const starts = createPendingStarts();

  async function follow(container: LiveContainer): Promise<void> {
    const { id, init, monitor } = container;
    const exit = await runtimeOf(parts, container.runtime).waitForExit(id, init, monitor, watches.closing);
    if (sharesPidNamespace(container)) await killOrphans(container);
    await starts.settled(id);
    const found = await parts.containers.update(id, (current) =>
      isLive(current) ? endContainer(current, endingOf(current, exit)) : current,
    );
    if (!found) return;
    parts.log.info({ containerId: id, exitCode: exit.exitCode }, "container exited");
    void explainEnd(found); // nobody waits for it: the log may lie on a file system that hangs
  }

  /** Its children have no init to take them along. One that cannot die does not keep the end from being told. */
  async function killOrphans({ id, init, runtime }: LiveContainer): Promise<void> {
    try {
      await runtimeOf(parts, runtime).kill(id, init, sigkill, { all: true });
    } catch (thrown) {
      parts.log.warn({ containerId: id, err: String(thrown) }, "processes of a container outlive its init");
    }
  }

  async function explainEnd(container: Container): Promise<void> {
    try {
      const message = await lastWordsOf(container, parts);
      if (message === "") return;
      await parts.containers.update(container.id, (current) =>
        current.state === "exited" ? { ...current, message } : current,
      );
    } catch (thrown) {
      parts.log.debug({ containerId: container.id, err: String(thrown) }, "last words of a container not read");
    }
  }

  async function followPause(sandbox: SandboxIn<"ready">): Promise<void> {
    if (!sandbox.pause) return;
    using pause = openProcess(sandbox.pause);
    if (pause) await untilAborted(pause.exited, watches.closing);
    await parts.sandboxes.update(sandbox.id, (current) => {
      if (current.state !== "ready") return current;
      parts.log.warn({ podSandboxId: sandbox.id }, "pause process ended; pod sandbox is not ready");
      return advanceSandbox(current, { ...sandboxBase(current), state: "not-ready", ips: current.ips });
    });
  }

  return {
    watch: (container) => void watches.keep(container.id, () => follow(container)),
    async ended(id) {
      const container = parts.containers.get(id);
      if (container && isLive(container)) await watches.keep(id, () => follow(container));
    },
    whileStarting: (id, start) => starts.run(id, start),
    watchPause: (sandbox) => void watches.keep(sandbox.id, () => followPause(sandbox)),
    [Symbol.asyncDispose]: () => watches[Symbol.asyncDispose](),
  };
}

interface Watches extends AsyncDisposable {
  readonly closing: AbortSignal;
  /** Does the work for an id until it succeeds; joins the one that is at it already. */
  keep(id: string, work: () => Promise<void>): Promise<void>;
}

function createWatches(log: Logger): Watches {
  const running = new Map<string, Promise<void>>();
  const controller = new AbortController();
  const { signal } = controller;

  /** An end that could not be written down, on a full disk say, would else never be seen. */
  async function persist(id: string, work: () => Promise<void>): Promise<void> {
    for (let pauseMs = firstRetryMs; ; pauseMs = Math.min(pauseMs * 2, longestRetryMs)) {
      signal.throwIfAborted();
      try {
        return await work();
      } catch (thrown) {
        signal.throwIfAborted();
        log.error({ id, err: String(thrown) }, "lost track of a process; trying again");
      }
      await untilAborted(sleep(pauseMs, undefined, { ref: false }), signal);
    }
  }

  return {
    closing: signal,
    keep(id, work) {
      const known = running.get(id);
      if (known) return known;
      const outcome = persist(id, work).finally(() => running.delete(id));
      outcome.catch(() => undefined); // told to whoever waits for it
      running.set(id, outcome);
      return outcome;
    },
    async [Symbol.asyncDispose]() {
      controller.abort(new CriError(Code.Unavailable, "Berth is shutting down"));
      await Promise.allSettled(running.values());
    },
  };
}

interface PendingStarts {
  run(id: string, start: () => Promise<void>): Promise<void>;
  /** Waits, within limits, for the start of a container that is under way. */
  settled(id: string): Promise<void>;
}

function createPendingStarts(): PendingStarts {
  const pending = new Map<string, Promise<void>>();
  return {
    async run(id, start) {
      const work = start();
      const settled = work.catch(() => undefined);
      pending.set(id, settled);
      try {
        await work;
      } finally {
        pending.delete(id);
      }
    },
    async settled(id) {
      const start = pending.get(id);
      if (!start) return;
      const { promise: late, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, startSlackMs);
      await Promise.race([start, late]);
      clearTimeout(timer);
    },
  };
}

function sharesPidNamespace(container: Container): boolean {
  return container.config.linux?.securityContext?.namespaceOptions?.pid !== "CONTAINER";
}
