import { chown, lstat, readlink } from "node:fs/promises";
import { join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { processIdentity, resolveForeignPaths, writeFileAtomically } from "../../native/index.ts";
import { configPathOf } from "./bundle.ts";
import { readCgroupPaths } from "./cgroup-paths.ts";
import { deleteContainer } from "./container-delete.ts";
import { runtimeFailure } from "./failure.ts";
import type { RuntimeHost } from "./host.ts";
import { hiddenDirectories } from "./invocation.ts";
import { assertId } from "./state.ts";
import { withSwapLimitOfItsOwn } from "./swap-limit.ts";
import type { OciResources, Spec } from "../spec/oci-types.ts";
import type { CreatedProcess, CreateProcess, HostUser } from "./types.ts";

/** Longer than any create that gets anywhere; kubelet's own patience is 2 minutes. */
const createDeadlineMs = 110_000;
const undoDeadlineMs = 30_000;
/** For a log on a file system that has come to hang. */
const logRemovalDeadlineMs = 5_000;

export async function createContainer(
  host: RuntimeHost,
  signal: AbortSignal,
  process: CreateProcess,
): Promise<CreatedProcess> {
  const { id, bundle, spec } = process;
  assertId(id);
  if (await isThere(join(host.config.root, id)))
    throw new CriError(Code.FailedPrecondition, `container "${id}" already exists in the runtime`);
  await using undo = new AsyncDisposableStack();

  undo.defer(() => undoCreate(host, process));
  const { initPid, monitor } = await launch(host, signal, process);
  const init = await processIdentity(initPid);
  if (!init) throw new CriError(Code.Internal, `cannot create container "${id}": its init process ended at once`);
  if (process.hostUser) await givePipes(init, process.hostUser);
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
  const config = JSON.stringify(withLimitsAsMeant(host, spec));
  const prepare = (): Promise<void> => writeFileAtomically(configPathOf(bundle), config, { survives: "kill" });
  const deadline = AbortSignal.timeout(createDeadlineMs);
  const outcome = await host.monitor
    .launch(AbortSignal.any([signal, deadline]), { ...process, prepare })
    .catch((thrown) => {
      if (signal.aborted || !deadline.aborted) throw thrown;
      const seconds = createDeadlineMs / 1000;
      throw new CriError(Code.DeadlineExceeded, `container "${id}" was not created within ${seconds} s`, {
        cause: thrown,
      });
    });
  if (outcome.kind === "created") return outcome;
  throw runtimeFailure(outcome.output, {
    what: `cannot create container "${id}"`,
    executable: spec.process.args[0],
    imageName: process.imageName,
    memoryLimitBytes: spec.linux.resources.memory?.limit,
    rootfs: spec.root.path,
    hidden: [bundle, ...hiddenDirectories(host.config)],
  });
}

function withLimitsAsMeant(host: RuntimeHost, spec: Spec): Spec {
  const resources = withoutNoQuota(withSwapLimitOfItsOwn(host, spec.linux.resources));
  return { ...spec, linux: { ...spec.linux, resources } };
}

/**
 * Runtimes give a container's pipes to its user, as he could not open them again else; but not from inside a user
 * namespace, to which the host's root, whose they are, is nobody.
 */
async function givePipes({ pid }: ProcessIdentity, { uid, gid }: HostUser): Promise<void> {
  for (const path of [0, 1, 2].map((fd) => `/proc/${pid}/fd/${fd}`))
    if ((await readlink(path)).startsWith("pipe:")) await chown(path, uid, gid);
}

/** crun 1.8.1 writes "no quota" as a number out of range; it is what a new cgroup has anyway. */
function withoutNoQuota(resources: OciResources): OciResources {
  if (resources.cpu?.quota === undefined || resources.cpu.quota >= 0) return resources;
  const { quota: _quota, ...cpu } = resources.cpu;
  return { ...resources, cpu };
}

async function undoCreate(host: RuntimeHost, process: CreateProcess): Promise<void> {
  await using steps = new AsyncDisposableStack(); // the last comes first, and none waits for another to succeed
  steps.defer(() => removeNewLog(process));
  steps.defer(() => deleteContainer(host, AbortSignal.timeout(undoDeadlineMs), process.id, process.bundle));
}

/** One that cannot be removed is kubelet's, as the directory is. */
async function removeNewLog({ logPath, keepsLog }: CreateProcess): Promise<void> {
  if (keepsLog || logPath === "") return;
  const options = { signal: new AbortController().signal, deadlineMs: logRemovalDeadlineMs };
  await resolveForeignPaths([{ path: logPath, want: "nothing" }], options);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch {
    return false;
  }
}
