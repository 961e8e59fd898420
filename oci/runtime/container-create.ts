import { lstat, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { openProcess, processIdentity, removeTree, writeFileAtomically } from "../../native/index.ts";
import { readCgroupPaths } from "./cgroup-paths.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { cgroupPathsOfSpec, hasCgroups, killCgroup, removeCgroups } from "./cgroup-processes.ts";
import { runtimeFailure } from "./failure.ts";
import type { RuntimeHost } from "./host.ts";
import { hiddenDirectories, invokeRuntime } from "./invocation.ts";
import { assertId } from "./state.ts";
import type { Spec } from "../spec/oci-types.ts";
import type { CreatedProcess, CreateProcess } from "./types.ts";

/** Longer than any create that gets anywhere; kubelet's own patience is 2 minutes. */
const createDeadlineMs = 110_000;
const undoDeadlineMs = 30_000;
/** conmon writes the exit file within milliseconds of init's end; then it goes. */
const monitorGraceMs = 1_000;

export async function createContainer(
  host: RuntimeHost,
  signal: AbortSignal,
  process: CreateProcess,
): Promise<CreatedProcess> {
  const { id, bundle, spec, logPath } = process;
  assertId(id);
  const [isTaken, hadLog] = await Promise.all([
    isThere(join(host.config.root, id)),
    logPath !== "" && isThere(logPath),
  ]);
  if (isTaken) throw new CriError(Code.FailedPrecondition, `container "${id}" already exists in the runtime`);
  await using undo = new AsyncDisposableStack();

  undo.defer(() => undoCreate(host, process, hadLog));
  const ownDeadline = AbortSignal.timeout(createDeadlineMs);
  const { initPid, monitor } = await launch(host, AbortSignal.any([signal, ownDeadline]), process);
  const init = await processIdentity(initPid);
  if (!init) throw new CriError(Code.Internal, `cannot create container "${id}": its init process ended at once`);
  const cgroups = await readCgroupPaths(initPid, host.cgroupMounts);
  const opensGate = !("hooks" in spec);
  await host.states.save(id, { bundle, init, monitor, cgroups, opensGate });

  undo.move();
  return { init, monitor };
}

async function launch(
  host: RuntimeHost,
  signal: AbortSignal,
  process: CreateProcess,
): Promise<{ readonly initPid: number; readonly monitor: ProcessIdentity | undefined }> {
  const { id, bundle, spec } = process;
  const config = JSON.stringify(withoutNoQuota(spec));
  const prepare = (): Promise<void> => writeFileAtomically(join(bundle, "config.json"), config, { mode: 0o600 });
  const outcome = await host.monitor.launch(signal, { ...process, prepare });
  if (outcome.kind === "created") return outcome;
  throw runtimeFailure(outcome.output, {
    what: `cannot create container "${id}"`,
    executable: spec.process.args[0],
    rootfs: spec.root.path,
    hidden: [bundle, ...hiddenDirectories(host.config)],
  });
}

/** crun 1.8.1 writes "no quota" as a number out of range; it is what a new cgroup has anyway. */
function withoutNoQuota(spec: Spec): Spec {
  const { resources } = spec.linux;
  if (resources.cpu?.quota === undefined || resources.cpu.quota >= 0) return spec;
  const { quota: _quota, ...cpu } = resources.cpu;
  return { ...spec, linux: { ...spec.linux, resources: { ...resources, cpu } } };
}

/** Each step stands alone: what a killed create has got to is not known. */
async function undoCreate(host: RuntimeHost, process: CreateProcess, hadLog: boolean): Promise<void> {
  const { id, bundle, spec, logPath } = process;
  await host.monitor.end(bundle, 0);
  await destroy(
    host,
    AbortSignal.timeout(undoDeadlineMs),
    id,
    cgroupPathsOfSpec(spec.linux.cgroupsPath, host.cgroupMounts),
  );
  await rm(join(bundle, "config.json"), { force: true });
  if (!hadLog && logPath !== "") await rm(logPath, { force: true });
}

export async function deleteContainer(
  host: RuntimeHost,
  signal: AbortSignal,
  id: string,
  bundle: string,
): Promise<void> {
  const state = await host.states.load(id);
  if (state) await killInit(state.init, signal);
  const monitorEnds = host.monitor.end(bundle, monitorGraceMs);
  await Promise.all([monitorEnds, destroy(host, signal, id, state?.cgroups)]);
  await host.states.remove(id); // the monitor is gone: nobody writes an exit file any more
}

async function killInit(init: ProcessIdentity, signal: AbortSignal): Promise<void> {
  const opened = openProcess(init);
  if (!opened) return;
  await using process = opened;
  process.signal(9);
  const waited = new AbortController();
  const given = AbortSignal.any([waited.signal, signal]);
  await Promise.race([process.exited, sleep(undoDeadlineMs, undefined, { signal: given }).catch(() => undefined)]);
  waited.abort();
}

async function destroy(
  host: RuntimeHost,
  signal: AbortSignal,
  id: string,
  cgroups: CgroupPaths | undefined,
): Promise<void> {
  const runtimeState = join(host.config.root, id);
  if (await isThere(runtimeState)) {
    await deleteByRuntime(host, signal, id);
    await removeTree(runtimeState); // a create that was killed leaves a directory that the runtime does not take for a container
  }
  if (!cgroups || !(await hasCgroups(cgroups))) return;
  await killCgroup(cgroups);
  if (host.config.cgroupDriver === "cgroupfs") await removeCgroups(cgroups); // a scope is systemd's to remove
}

/** A runtime that cannot read its own state must not keep the container for ever: what it holds is taken down by hand. */
async function deleteByRuntime(host: RuntimeHost, signal: AbortSignal, id: string): Promise<void> {
  const failure = { what: `cannot delete container "${id}"` };
  try {
    await invokeRuntime(host.config, signal, { args: ["delete", "--force", id], failure });
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
