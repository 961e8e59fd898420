import { statfs } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive, untilAborted } from "../native/index.ts";
import { nowNs } from "./clock.ts";
import { endContainer, endingOf } from "./container-ending.ts";
import { finishUpdate } from "./container-update-resources.ts";
import { advanceContainer, isLive } from "./container.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf, exists, sandboxPathsOf } from "./layout.ts";
import { clearLeftovers, guarded } from "./leftovers.ts";
import { runtimeOf } from "./runtimes.ts";
import { pinnedNamespaces } from "./sandbox-namespaces.ts";
import { advanceSandbox, sandboxBase } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";

/** Leftovers are cleared before the first answer, unless a plugin or runtime hangs: pods that run do not wait for it. */
const leftoverPatienceMs = 10_000;
/** A monitor that lives has at most 10 s to tell the exit of a container that ended. */
const exitPatienceMs = 15_000;
/** An update goes on behind the answers where its runtime hangs. */
const updatePatienceMs = 10_000;
/** When nobody is left who saw how a process ended. */
const unknownExitCode = 255;

/**
 * Makes the records true again after the daemon was away: what still runs is watched again, what ended meanwhile gets
 * its exit, half-made things are undone, and pods whose namespaces are gone (a reboot) are not ready.
 */
export async function recover(host: Host): Promise<void> {
  const startedAtMs = performance.now();
  const counts = { podSandboxes: host.sandboxes.all().length, containers: host.containers.all().length };
  const cleared = clearLeftovers(host);
  await Promise.all(
    host.containers.all().map((container) => guarded(host, container.id, () => recoverContainer(container, host))),
  );
  await Promise.all(
    host.sandboxes.all().map((sandbox) => guarded(host, sandbox.id, () => recoverSandbox(sandbox, host))),
  );
  await Promise.race([cleared, sleep(leftoverPatienceMs, undefined, { ref: false })]);
  if (counts.podSandboxes + counts.containers === 0) return;
  const elapsedMs = Math.round(performance.now() - startedAtMs);
  host.log.info({ ...counts, elapsedMs }, "took up the objects of the daemon before");
}

async function recoverContainer(container: Container, host: Host): Promise<void> {
  if (!isLive(container)) return;
  if (!(await exists(containerPathsOf(host.layout, container.id).bundle))) return await endByReboot(container, host);
  const live = await startedMeanwhile(container, host);
  host.exits.watch(live);
  if (isAlive(live.init)) {
    host.stops.resume(live);
    return await finishUpdate(live.id, AbortSignal.timeout(updatePatienceMs), host);
  }
  // Its exit is on disk: no answer before it is known.
  await untilAborted(host.exits.ended(live.id), AbortSignal.timeout(exitPatienceMs));
}

/** All volatile state is gone, and with it the process: whoever has its pid now is somebody else. */
async function endByReboot(container: LiveContainer, host: Host): Promise<void> {
  const exit = { exitCode: unknownExitCode, finishedAtNs: nowNs(), oomKilled: false };
  await host.containers.save(endContainer(container, endingOf(container, exit)));
}

/** A daemon that died between the runtime's start and its own record left `created` behind. */
async function startedMeanwhile(container: LiveContainer, host: Host): Promise<LiveContainer> {
  if (container.state !== "created") return container;
  const runtime = runtimeOf(host, container.runtime);
  if (!(await runtime.isStarted(container.id))) return container;
  const exit = isAlive(container.init) ? undefined : await runtime.readExit(container.id);
  const startedAtNs = exit?.finishedAtNs ?? nowNs(); // never after its end
  const running = { ...container, state: "running", startedAtNs } as const;
  await host.containers.save(advanceContainer(container, running));
  return running;
}

async function recoverSandbox(sandbox: Sandbox, host: Host): Promise<void> {
  if (sandbox.state !== "ready") return;
  if (await isWhole(sandbox, host)) return host.exits.watchPause(sandbox);
  await host.sandboxes.save(advanceSandbox(sandbox, { ...sandboxBase(sandbox), state: "not-ready", ips: sandbox.ips }));
  host.log.warn({ podSandboxId: sandbox.id }, "pod sandbox lost its namespaces or pause process; it is not ready");
}

async function isWhole(sandbox: SandboxIn<"ready">, host: Host): Promise<boolean> {
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  if (!(await exists(paths.directory))) return false;
  if (sandbox.pause && !isAlive(sandbox.pause)) return false;
  const pins = await Promise.all(pinnedNamespaces(sandbox.config, paths).map(isPinned));
  return pins.every(Boolean);
}

const nsfsMagic = 0x6e_73_66_73;

/** Without its mount the file is still there, and empty. */
async function isPinned(path: string): Promise<boolean> {
  const found = await statfs(path).catch(() => undefined);
  return found?.type === nsfsMagic;
}
