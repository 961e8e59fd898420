import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { isAlive, openProcess, readFileBounded, removeFiles, removeTree } from "../../native/index.ts";
import { configPathOf } from "./bundle.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { cgroupPathsOfSpec, endCgroups, killCgroup } from "./cgroup-processes.ts";
import type { RuntimeHost } from "./host.ts";
import { invokeRuntime } from "./invocation.ts";
import { assertId, parseJson } from "./state.ts";

/** conmon writes the exit file within milliseconds of init's end; then it goes. */
const monitorGraceMs = 1_000;
/** A process that does not die of SIGKILL for this long waits for a device or a dead file server. */
const killDeadlineMs = 30_000;
/** Longer than any delete that gets anywhere; what a hung one leaves undone is done by hand. */
const deleteDeadlineMs = 20_000;
const maxSpecBytes = 16 * 1024 * 1024;

/** Each step stands alone. `config.json`, which tells the next try where the cgroups are, goes when all have been done. */
export async function deleteContainer(
  host: RuntimeHost,
  signal: AbortSignal,
  id: string,
  bundle: string,
): Promise<void> {
  assertId(id);
  const state = await host.states.load(id);
  if (state) {
    await killInit(id, state.init, signal);
    const steps = [host.monitor.end(bundle, monitorGraceMs), destroyContainer(host, signal, id, state.cgroups)];
    await Promise.allSettled(steps); // the next try must not meet this one
    await Promise.all(steps);
  } else {
    const [ended] = await Promise.allSettled([host.monitor.endHalfMade(bundle)]); // what makes things ends before they do
    await destroyContainer(host, signal, id, await cgroupsOfBundle(host, id, bundle));
    if (ended.status === "rejected") throw ended.reason;
  }
  await host.states.remove(id); // the monitor is gone: nobody writes an exit file any more
  await removeFiles([configPathOf(bundle)]);
}

const specSchema = v.object({ linux: v.object({ cgroupsPath: v.string() }) });

async function cgroupsOfBundle(host: RuntimeHost, id: string, bundle: string): Promise<CgroupPaths | undefined> {
  const text = await readFileBounded(configPathOf(bundle), maxSpecBytes);
  const parsed = v.safeParse(specSchema, parseJson(text?.toString("utf8") ?? ""));
  return parsed.success ? cgroupPathsOfSpec(parsed.output.linux.cgroupsPath, id, host.cgroupMounts) : undefined;
}

/** What is known of a container that cannot be killed must stay, for the next try. */
async function killInit(id: string, init: ProcessIdentity, signal: AbortSignal): Promise<void> {
  const opened = openProcess(init);
  if (!opened) return;
  await using process = opened;
  process.signal(9);
  const waited = new AbortController();
  const given = AbortSignal.any([waited.signal, signal]);
  await Promise.race([process.exited, sleep(killDeadlineMs, undefined, { signal: given }).catch(() => undefined)]);
  waited.abort();
  signal.throwIfAborted();
  if (isAlive(init)) throw new CriError(Code.Internal, `container "${id}" survives SIGKILL`);
}

/** Takes down whatever there is of a container below the runtime; each step stands alone and may find nothing. */
async function destroyContainer(
  host: RuntimeHost,
  signal: AbortSignal,
  id: string,
  cgroups: CgroupPaths | undefined,
): Promise<void> {
  if (cgroups) await killCgroup(cgroups); // those that init did not take along, where they have the host's pid namespace
  const runtimeState = join(host.config.root, id);
  if (await isThere(runtimeState)) {
    await deleteByRuntime(host, signal, id);
    await removeTree(runtimeState); // a create that was killed leaves a directory that the runtime does not take for a container
  }
  if (cgroups) await endCgroups(cgroups, id, host.config.cgroupDriver === "cgroupfs");
}

/** A runtime that hangs, or cannot read its own state, must not keep the container: what it holds is taken down by hand. */
async function deleteByRuntime(host: RuntimeHost, signal: AbortSignal, id: string): Promise<void> {
  const failure = { what: `cannot delete container "${id}"` };
  try {
    await invokeRuntime(host.config, signal, {
      args: ["delete", "--force", id],
      failure,
      deadlineMs: deleteDeadlineMs,
    });
  } catch (thrown) {
    signal.throwIfAborted();
    host.log.warn({ containerId: id, err: thrown }, "runtime did not delete a container; removing what it left");
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch {
    return false;
  }
}
