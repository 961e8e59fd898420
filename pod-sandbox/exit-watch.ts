import type { Logger } from "../cri-api/index.ts";
import type { ContainerExit, Runtime } from "../oci/index.ts";
import { advanceContainer, isLive } from "./container.ts";
import type { Container, ContainerIn, Ending, LiveContainer } from "./container.ts";
import type { RecordStore } from "./record-store.ts";
import { advanceSandbox, sandboxBase } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";
import { openProcess } from "../native/index.ts";

/** Notices the end of every process that the room answers for, and writes it into the records. */
export interface ExitWatch extends AsyncDisposable {
  /** Waits for the container's end from now on; called once when it is created and once at restart. */
  watch(container: LiveContainer): void;
  /** Settles when the record says `exited`; at once when nothing is being watched. */
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
  readonly runtimes: ReadonlyMap<string, Runtime>;
  readonly log: Logger;
}

const sigkill = 9;
/** A runtime that has not returned so long after the container's end waits for what will not come. */
const startSlackMs = 5_000;

export function createExitWatch(parts: ExitWatchParts): ExitWatch {
  const watched = new Map<string, Promise<void>>();
  const starts = createPendingStarts();
  const closing = new AbortController();

  async function follow(container: LiveContainer): Promise<void> {
    const runtime = parts.runtimes.get(container.runtime);
    if (!runtime) throw new Error(`runtime handler "${container.runtime}" is not configured any more`);
    const exit = await runtime.waitForExit(container.id, container.init, container.monitor, closing.signal);
    if (sharesPidNamespace(container)) {
      await runtime.kill(container.id, container.init, sigkill, { all: true }); // its children have no init to take them along
    }
    await starts.settled(container.id);
    await parts.containers.update(container.id, (current) => (isLive(current) ? toExited(current, exit) : current));
    parts.log.info({ containerId: container.id, exitCode: exit.exitCode }, "container exited");
  }

  async function followPause(sandbox: SandboxIn<"ready">): Promise<void> {
    if (!sandbox.pause) return;
    const pause = openProcess(sandbox.pause);
    if (pause) {
      await using process = pause;
      await Promise.race([process.exited, aborted(closing.signal)]);
    }
    if (closing.signal.aborted) return;
    await parts.sandboxes.update(sandbox.id, (current) => {
      if (current.state !== "ready") return current;
      parts.log.warn({ podSandboxId: sandbox.id }, "pause process ended; pod sandbox is not ready");
      return advanceSandbox(current, { ...sandboxBase(current), state: "not-ready", ips: current.ips });
    });
  }

  function keep(key: string, work: Promise<void>): void {
    const guarded = work
      .catch((thrown: unknown) => {
        if (!closing.signal.aborted) parts.log.error({ id: key, err: String(thrown) }, "lost track of a process");
      })
      .finally(() => watched.delete(key));
    watched.set(key, guarded);
  }

  return {
    watch: (container) => keep(container.id, follow(container)),
    ended: (id) => watched.get(id) ?? Promise.resolve(),
    whileStarting: (id, start) => starts.run(id, start),
    watchPause: (sandbox) => keep(sandbox.id, followPause(sandbox)),
    async [Symbol.asyncDispose]() {
      closing.abort();
      await Promise.allSettled(watched.values());
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

function toExited(container: LiveContainer, exit: ContainerExit): ContainerIn<"exited"> {
  const ending: Ending = {
    startedAtNs: container.state === "running" ? container.startedAtNs : 0n,
    finishedAtNs: exit.finishedAtNs,
    exitCode: exit.exitCode,
    reason: exitReason(exit),
    message: "",
  };
  return endContainer(container, ending);
}

/** The record of a live container once it has ended. */
export function endContainer(container: LiveContainer, ending: Ending): ContainerIn<"exited"> {
  const { init: _init, monitor: _monitor, ...kept } = container;
  const exited = { ...kept, ...ending, state: "exited" } as const;
  return container.state === "created" ? advanceContainer(container, exited) : advanceContainer(container, exited);
}

/** kubelet matches these words exactly. */
function exitReason(exit: ContainerExit): string {
  if (exit.oomKilled) return "OOMKilled";
  return exit.exitCode === 0 ? "Completed" : "Error";
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
}
