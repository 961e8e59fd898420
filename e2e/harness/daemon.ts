import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";
import { connectClient, type CriClient } from "./cri-client.ts";
import { pluginDirectory, writeConflist } from "./network.ts";
import { readDeployment } from "./deployment.ts";
import { cacheDirectory, nodeProgram, repository } from "./repository.ts";
import { rulesFor, writeRegistryFiles } from "./registry-files.ts";
import { waitUntil } from "./wait-until.ts";
import type { Workspace } from "./workspace.ts";

export interface DaemonOptions {
  /** host:port of a registry that is reached over plain HTTP. */
  readonly registries: readonly string[];
  /** Hosts whose images are looked for in the first registry. */
  readonly mirroredHosts?: readonly string[];
  /** More of it than where programs and temporary files lie. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly defaultRuntime?: string;
  /** By handler; the system's crun and runc unless told otherwise. */
  readonly runtimes?: Readonly<Record<string, { readonly path: string }>>;
  /** Where plugins are looked for before the system's own. */
  readonly pluginDirectory?: string;
  /** What the daemon is started by, such as `prlimit`; it takes the daemon's command line as its last arguments. */
  readonly launcher?: readonly string[];
  /** More keys of the configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** A Berth daemon as its unit file has it run: a process with a config file and a socket. */
export interface Daemon extends AsyncDisposable {
  readonly client: CriClient;
  readonly socketPath: string;
  readonly workspace: Workspace;
  readonly pid: number;
  /** Resolves when the process that runs now has ended, for whatever reason. */
  readonly exited: Promise<number | string>;
  /** Sends a signal and waits for the end; resolves with the exit code, or the name of the signal it died of. */
  stop(signal: "SIGTERM" | "SIGKILL"): Promise<number | string>;
  /** Starts it again on the same folders. */
  start(): Promise<void>;
  readLog(): Promise<string>;
}

/** Writes config and conflist into the workspace, starts the daemon and waits until it answers. */
export async function startDaemon(workspace: Workspace, options: DaemonOptions): Promise<Daemon> {
  await writeConflist(workspace);
  const socketPath = path.join(workspace.state, "berth.sock");
  const configFile = path.join(workspace.directory, "berth.toml");
  const logFile = path.join(workspace.logs, "daemon.log");
  await mkdir(workspace.state, { recursive: true, mode: 0o711 });
  await writeFile(configFile, stringify(await daemonConfig(workspace, socketPath, options)));
  const client = connectClient(socketPath);
  const { nodeFlags, env } = await readDeployment(repository);
  const program = [nodeProgram, ...nodeFlags, path.join(repository, "server/main.ts")];
  const command = [...(options.launcher ?? []), ...program, "serve"];
  const environment = {
    ...env,
    NODE_COMPILE_CACHE: path.join(cacheDirectory, "compiled"),
    TMPDIR: workspace.temporary,
    HOME: workspace.directory,
    ...options.environment,
  };
  let child = await launch([...command, "--config", configFile], logFile, environment);
  const daemon: Daemon = {
    client,
    socketPath,
    workspace,
    get pid() {
      return child.pid ?? -1;
    },
    get exited() {
      return waitForEnd(child);
    },
    async stop(signal) {
      const ended = waitForEnd(child);
      child.kill(signal);
      return ended;
    },
    async start() {
      child = await launch([...command, "--config", configFile], logFile, environment);
      await waitUntilServing(client, child, logFile);
    },
    readLog: () => readFile(logFile, "utf8"),
    async [Symbol.asyncDispose](): Promise<void> {
      client[Symbol.dispose]();
      const ended = waitForEnd(child);
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
      await ended;
      clearTimeout(timer);
    },
  };
  await using undo = new AsyncDisposableStack();
  undo.use(daemon);
  await waitUntilServing(client, child, logFile);
  undo.move();
  return daemon;
}

async function launch(
  command: readonly string[],
  logFile: string,
  environment: Readonly<Record<string, string>>,
): Promise<ChildProcess> {
  const log = await open(logFile, "a");
  const [program = "", ...args] = command;
  const child = spawn(program, args, {
    cwd: "/",
    stdio: ["ignore", log.fd, log.fd],
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      ...environment,
    },
  });
  await log.close();
  return child;
}

/** A machine that builds and tests at once starts programs slowly. */
const startPatienceMs = 60_000;

async function waitUntilServing(client: CriClient, child: ChildProcess, logFile: string): Promise<void> {
  const ask = async (): Promise<"dead" | "serving"> => {
    if (child.exitCode !== null || child.signalCode !== null) return "dead";
    await client.call("Version", {}, { timeoutMs: 1_000 });
    return "serving";
  };
  await waitUntil("the daemon to answer", ask, startPatienceMs).then(async (outcome) => {
    if (outcome === "dead") throw new Error(`the daemon ended at start:\n${await readFile(logFile, "utf8")}`);
  });
}

function waitForEnd(child: ChildProcess): Promise<number | string> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode);
  if (child.signalCode !== null) return Promise.resolve(child.signalCode);
  return new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal ?? -1)));
}

async function daemonConfig(
  workspace: Workspace,
  socketPath: string,
  options: DaemonOptions,
): Promise<Record<string, unknown>> {
  return {
    root: workspace.root,
    state: workspace.state,
    socket: socketPath,
    log_level: "debug",
    cgroup_driver: "cgroupfs",
    default_runtime: options.defaultRuntime ?? "crun",
    monitor: "conmon",
    cdi_spec_dirs: [path.join(workspace.directory, "cdi")],
    runtimes: options.runtimes ?? { crun: { path: "crun" }, runc: { path: "runc" } },
    cni: {
      conf_dir: workspace.cniConfDir,
      plugin_dirs: [...(options.pluginDirectory ? [options.pluginDirectory] : []), pluginDirectory],
      cache_dir: workspace.cniCacheDir,
      default_network: "",
    },
    registries: await writeRegistryFiles(
      path.join(workspace.directory, "registries"),
      rulesFor(options.registries, options.mirroredHosts),
    ),
    ...options.config,
  };
}
