import { chmod, copyFile, mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Call } from "../cri-api/index.ts";
import { helperPath, relabel } from "../native/index.ts";
import type { ProcessIdentity } from "../native/index.ts";
import { buildPauseSpec, podIdMaps } from "../oci/index.ts";
import type { HostFacts } from "../oci/index.ts";
import { cgroupsPathOf } from "./host.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import type { Layout, SandboxPaths } from "./layout.ts";
import { usesHostNetwork } from "./network.ts";
import { runtimeOf } from "./runtimes.ts";
import { namespaceOptionsOf } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";
import { selinuxLabelsOf } from "./selinux.ts";
import { teardownDeadlineMs, undoneByUs } from "./undo.ts";
import { letPodRootThrough } from "./user-namespace.ts";

/** Lays out the root filesystem that all pause processes share, read-only: one static binary. */
export async function installPauseRootfs(layout: Layout, { selinux }: Pick<HostFacts, "selinux">): Promise<void> {
  await chmod(layout.pauseRootfs, 0o755); // the pause process is nobody
  for (const directory of ["proc", "dev", "sys"]) await mkdir(join(layout.pauseRootfs, directory), { recursive: true });
  const target = join(layout.pauseRootfs, "berth-helper");
  if (!(await isCopy(target))) {
    const aside = `${target}.new`;
    await copyFile(helperPath, aside);
    await chmod(aside, 0o755);
    await rename(aside, target);
  }
  const signal = AbortSignal.timeout(teardownDeadlineMs);
  if (selinux) await relabel([layout.pauseRootfs], selinux.file, { signal });
}

/** One that is there already is left alone: it takes no room where there is none. */
async function isCopy(path: string): Promise<boolean> {
  const [wanted, found] = await Promise.all([readFile(helperPath), readFile(path).catch(() => undefined)]);
  return found?.equals(wanted) ?? false;
}

/** Starts PID 1 of a pod-wide PID namespace, in the pod's cgroup, under the same monitor and runtime as a container. */
export async function startPauseProcess(
  call: Call,
  sandbox: SandboxIn<"creating">,
  paths: SandboxPaths,
  host: Host,
): Promise<ProcessIdentity> {
  const runtime = runtimeOf(host, sandbox.runtime);
  const modes = namespaceOptionsOf(sandbox.config);
  const spec = buildPauseSpec({
    id: sandbox.id,
    sandbox: sandbox.config,
    rootfsPath: host.layout.pauseRootfs,
    args: ["/berth-helper", "pause"],
    namespaces: {
      ...(podIdMaps(sandbox.config) ? { user: paths.userns } : {}),
      ...(usesHostNetwork(sandbox.config) ? {} : { network: paths.netns, uts: paths.utsns }),
      ...(modes.ipc === "NODE" ? {} : { ipc: paths.ipcns }),
    },
    cgroup: {
      path: cgroupsPathOf(host, sandbox.config.linux?.cgroupParent ?? "", sandbox.id),
      layout: host.facts.cgroupLayout,
    },
    host: host.facts,
    selinux: selinuxLabelsOf(host, sandbox),
  });
  await mkdir(paths.pauseBundle, { mode: 0o700 });
  await letPodRootThrough(sandbox.config, [paths.directory, paths.pauseBundle]);
  const streams = { logPath: "", tty: false, stdin: false, stdinOnce: false };
  const process = { id: sandbox.id, bundle: paths.pauseBundle, spec, ...streams };
  const { init } = await undoneByUs(runtime.create(call.signal, process));
  await runtime.start(call.signal, sandbox.id);
  return init;
}

/** Kills and deletes the pause process, if the pod has one. Idempotent, found by the id alone. */
export async function removePauseProcess(sandbox: Sandbox, host: Host): Promise<void> {
  if (namespaceOptionsOf(sandbox.config).pid !== "POD") return;
  const { pauseBundle } = sandboxPathsOf(host.layout, sandbox.id);
  await runtimeOf(host, sandbox.runtime).delete(AbortSignal.timeout(teardownDeadlineMs), sandbox.id, pauseBundle);
}
