import { access, lstat, rm } from "node:fs/promises";
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
import { assertId, loadState, removeState, saveState } from "./state.ts";
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
  if (await isThere(join(host.config.root, id))) {
    throw new CriError(Code.FailedPrecondition, `container "${id}" already exists in the runtime`);
  }
  const hadLog = logPath !== "" && (await isThere(logPath));
  await using undo = new AsyncDisposableStack();

  undo.defer(() => undoCreate(host, process, hadLog));
  await writeFileAtomically(join(bundle, "config.json"), JSON.stringify(spec), { mode: 0o600 });

  const ownDeadline = AbortSignal.timeout(createDeadlineMs);
  const { initPid, monitor } = await launch(host, AbortSignal.any([signal, ownDeadline]), process);
  const init = await processIdentity(initPid);
  if (!init) throw new CriError(Code.Internal, `cannot create container "${id}": its init process ended at once`);
  const cgroups = await readCgroupPaths(initPid, host.cgroupMounts);
  await saveState(host.config, id, { bundle, init, monitor, cgroups });

  undo.move();
  return { init, monitor };
}

async function launch(
  host: RuntimeHost,
  signal: AbortSignal,
  process: CreateProcess,
): Promise<{ readonly initPid: number; readonly monitor: ProcessIdentity | undefined }> {
  const { id, bundle, spec } = process;
  const outcome = await host.monitor.launch(signal, process);
  if (outcome.kind === "created") return outcome;
  throw runtimeFailure(outcome.output, {
    what: `cannot create container "${id}"`,
    executable: spec.process?.args?.[0],
    rootfs: spec.root?.path,
    hidden: [bundle, ...hiddenDirectories(host.config)],
  });
}

/** Each step stands alone: what a killed create has got to is not known. */
async function undoCreate(host: RuntimeHost, process: CreateProcess, hadLog: boolean): Promise<void> {
  const { id, bundle, spec, logPath } = process;
  await host.monitor.end(bundle, 0);
  await destroy(
    host,
    AbortSignal.timeout(undoDeadlineMs),
    id,
    cgroupPathsOfSpec(spec.linux?.cgroupsPath, host.cgroupMounts),
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
  const state = await loadState(host.config, id);
  if (state) await killInit(state.init, signal);
  const monitorEnds = host.monitor.end(bundle, monitorGraceMs);
  await Promise.all([monitorEnds, destroy(host, signal, id, state?.cgroups)]);
  await removeState(host.config, id); // the monitor is gone: nobody writes an exit file any more
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
    await invokeRuntime(host.config, signal, {
      args: ["delete", "--force", id],
      failure: { what: `cannot delete container "${id}"` },
    });
    await removeTree(runtimeState); // a create that was killed leaves a directory that the runtime does not take for a container
  }
  if (!cgroups || !(await hasCgroups(cgroups))) return;
  await killCgroup(cgroups);
  await removeCgroups(cgroups);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch {
    return false;
  }
}

/** The runtimes take the FIFO away when they let init go. */
export async function isStarted(host: RuntimeHost, id: string): Promise<boolean> {
  assertId(id);
  try {
    await access(join(host.config.root, id, "exec.fifo"));
    return false;
  } catch {
    return true;
  }
}
