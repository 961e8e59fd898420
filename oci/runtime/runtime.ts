import { mkdir } from "node:fs/promises";
import { readCgroupMounts } from "./cgroup-paths.ts";
import { killCgroup } from "./cgroup-processes.ts";
import { createConmon } from "./conmon.ts";
import { createContainer } from "./container-create.ts";
import { deleteContainer } from "./container-delete.ts";
import { findOomKill } from "./kernel-log.ts";
import { readExit, waitForExit } from "./container-exit.ts";
import { isStarted, startContainer } from "./container-start.ts";
import { execSync } from "./exec.ts";
import { probeRuntime } from "./features.ts";
import type { RuntimeHost } from "./host.ts";
import { globalArguments, runtimeEnvironment } from "./invocation.ts";
import { reopenLog } from "./log-reopen.ts";
import { execDirectory, exitDirectory, openStateStore, stateDirectory } from "./state.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { openProcess } from "../../native/index.ts";
import { endStrayExecs } from "./exec-processes.ts";
import { exec } from "./exec-streams.ts";
import type { Runtime, RuntimeConfig, RuntimeParts } from "./types.ts";
import { updateResources } from "./update.ts";

/**
 * Makes the directories below `config.stateDir` and asks the runtime once what it is; then it is ready for containers
 * of this and of earlier daemons.
 *
 * @throws {CriError} `Internal` when the runtime cannot be run.
 * @throws {NewerSchemaError} where a newer Berth has left containers.
 */
export async function createRuntime(config: RuntimeConfig, parts: RuntimeParts): Promise<Runtime> {
  for (const directory of [exitDirectory(config), execDirectory(config), stateDirectory(config), config.root]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  const states = await openStateStore(config);
  const [{ name, version, features }, cgroupMounts] = await Promise.all([
    probeRuntime(config.path),
    readCgroupMounts(),
  ]);
  const monitor = createConmon({
    path: config.monitorPath,
    runtimePath: config.path,
    runtimeArguments: globalArguments(config),
    usesSystemdCgroups: config.cgroupDriver === "systemd",
    exitDirectory: exitDirectory(config),
    env: runtimeEnvironment,
  });
  const host: RuntimeHost = {
    config,
    program: name,
    monitor,
    cgroupMounts,
    states,
    log: parts.log,
  };
  await endStrayExecs(host);
  return {
    handler: config.handler,
    version,
    features,
    create: (signal, process) => createContainer(host, signal, process),
    start: (signal, id) => startContainer(host, signal, id),
    isStarted: (id) => isStarted(host, id),
    kill: (id, init, signal, options) => killContainer(host, { id, init }, signal, options?.all ?? false),
    delete: (signal, id, bundle) => deleteContainer(host, signal, id, bundle),
    execSync: (signal, command, limits) => execSync(host, signal, command, limits),
    exec: (signal, command) => exec(host, signal, command),
    update: (signal, id, resources) => updateResources(host, signal, id, resources),
    reopenLog: (signal, bundle, logPath) => reopenLog(monitor, signal, bundle, logPath),
    resize: (bundle, size) => monitor.resize(bundle, size),
    attach: (bundle, handlers) => monitor.attach(bundle, handlers),
    readExit: (id) => readExit(host, id),
    waitForExit: (id, init, monitorIdentity, signal) =>
      waitForExit(host, { id, init, monitor: monitorIdentity }, signal),
    findOomKill: async (id) => {
      const state = await host.states.load(id);
      return state && (await findOomKill(id, state.init));
    },
    cgroupPaths: async (id) => (await host.states.load(id))?.cgroups,
  };
}

const sigkill = 9;

async function killContainer(
  host: RuntimeHost,
  container: { readonly id: string; readonly init: ProcessIdentity },
  signal: number,
  isAll: boolean,
): Promise<void> {
  const init = openProcess(container.init);
  if (init) {
    await using process = init;
    process.signal(signal);
  }
  if (!isAll || signal !== sigkill) return;
  const state = await host.states.load(container.id);
  if (state) await killCgroup(state.cgroups);
}
