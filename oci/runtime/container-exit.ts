import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProcessIdentity } from "../../native/index.ts";
import { isAlive, openProcess, readFileBounded, untilAborted } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import type { RuntimeHost } from "./host.ts";
import { findOomKill } from "./kernel-log.ts";
import { assertId, exitFile } from "./state.ts";
import type { ContainerExit } from "./types.ts";

const maxExitFileBytes = 32;
const maxEventFileBytes = 16 * 1024;
/** What a container reads as whose monitor died before it: nobody saw how it ended. */
const unknownExitCode = 255;
const killedExitCode = 137;
/** How long an exit file may take after init's end with a monitor that lives but does not get to write it. */
const fileDeadlineMs = 10_000;

/** Undefined until the monitor has written it down. */
export async function readExit(host: RuntimeHost, id: string): Promise<ContainerExit | undefined> {
  assertId(id);
  const path = exitFile(host.config, id);
  const text = await readFileBounded(path, maxExitFileBytes);
  if (!text) return undefined;
  const { mtimeNs } = await stat(path, { bigint: true });
  const exitCode = parseExitCode(text.toString("latin1"));
  return { exitCode, finishedAtNs: mtimeNs, oomKilled: await wasOomKilled(host, id, exitCode) };
}

export function parseExitCode(text: string): number {
  const code = /^\d{1,3}$/.test(text.trim()) ? Number(text) : unknownExitCode;
  return code > 255 ? unknownExitCode : code;
}

/** conmon can miss the event of a container that dies of it, so the kernel's own count is read too. */
async function wasOomKilled(host: RuntimeHost, id: string, exitCode: number): Promise<boolean> {
  const state = await host.states.load(id);
  if (!state) return false;
  if (await host.monitor.sawOom(state.bundle)) return true;
  if (exitCode !== killedExitCode) return false;
  const kills = await oomKillsOf(state.cgroups);
  return kills === undefined ? (await findOomKill(id, state.init)) !== undefined : kills > 0;
}

/** Undefined when the cgroup is gone. */
async function oomKillsOf(cgroups: CgroupPaths): Promise<number | undefined> {
  const { memory } = cgroups.controllers;
  const path =
    memory === undefined
      ? cgroups.unified && join(cgroups.unified, "memory.events")
      : join(memory, "memory.oom_control");
  const text = path === undefined ? undefined : await readFileBounded(path, maxEventFileBytes).catch(() => undefined);
  return text && parseOomKills(text.toString("latin1"));
}

/** `oom_kill N` stands in v2's memory.events and, from Linux 4.13, in v1's memory.oom_control. */
export function parseOomKills(text: string): number {
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

export async function waitForExit(
  host: RuntimeHost,
  container: { readonly id: string; readonly init: ProcessIdentity; readonly monitor: ProcessIdentity | undefined },
  signal: AbortSignal,
): Promise<ContainerExit> {
  await waitForEnd(container.init, signal);
  return await awaitExitFile(host, container, signal);
}

async function waitForEnd(identity: ProcessIdentity, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const opened = openProcess(identity);
  if (!opened) return;
  await using process = opened;
  await untilAborted(process.exited, signal);
}

/** Milliseconds pass between init's end and the file: looking again soon is cheaper than a watch on the directory. */
async function awaitExitFile(
  host: RuntimeHost,
  container: { readonly id: string; readonly monitor: ProcessIdentity | undefined },
  signal: AbortSignal,
): Promise<ContainerExit> {
  const { id, monitor } = container;
  const endedAtNs = BigInt(Date.now()) * 1_000_000n;
  const deadline = performance.now() + fileDeadlineMs;
  for (let pauseMs = 1; performance.now() < deadline; pauseMs = Math.min(2 * pauseMs, 100)) {
    const canStillCome = monitor !== undefined && isAlive(monitor); // asked before the file: it writes, then ends
    const exit = await readExit(host, id);
    if (exit) return exit;
    if (!canStillCome) break;
    await sleep(pauseMs, undefined, { signal });
  }
  host.log.warn({ containerId: id }, "container ended and its monitor wrote no exit code");
  const oomKilled = await wasOomKilled(host, id, killedExitCode);
  return { exitCode: unknownExitCode, finishedAtNs: endedAtNs, oomKilled };
}
