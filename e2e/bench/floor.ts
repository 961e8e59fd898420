import { spawn } from "node:child_process";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { pluginDirectory } from "../harness/network.ts";
import { runCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import type { Workspace } from "../harness/workspace.ts";
import { sleeper } from "./images.ts";
import type { Recorder } from "./measurements.ts";
import { netnsPrefix } from "./sweep.ts";

/** The same work with no daemon: what no server that keeps crun and the CNI plugins can go below. */
export interface Floor {
  /** One network namespace with addresses, one container in it; every process is a step. */
  run(name: string, recorder: Recorder): Promise<void>;
}

/** Reads the conflist and lays the bundles below the workspace. */
export async function createFloor(workspace: Workspace, rootDirectory: string): Promise<Floor> {
  const conflist: unknown = JSON.parse(await readFile(path.join(workspace.cniConfDir, "10-berth.conflist"), "utf8"));
  const directory = path.join(workspace.directory, "floor");
  const prefix = netnsPrefix(workspace);
  await mkdir(directory);
  return {
    async run(name, recorder) {
      const id = `${prefix}-${name}`;
      const bundle = path.join(directory, name);
      await mkdir(bundle, { recursive: true });
      await recorder.time("netns add", () => runCommand(["ip", "netns", "add", id]));
      try {
        const attachment = { conflist: conflist as Conflist, id };
        const result = await recorder.time("CNI ADD", () => addNetwork(attachment));
        try {
          const cgroup = `${workspace.cgroupParent}/${id}`;
          await writeFile(path.join(bundle, "config.json"), JSON.stringify(containerSpec(id, cgroup, rootDirectory)));
          await runContainer({ id, bundle, stateRoot: path.join(directory, "crun") }, recorder);
        } finally {
          await recorder.time("CNI DEL", () => deleteNetwork(attachment, result));
        }
      } finally {
        await recorder.time("netns delete", () => runCommand(["ip", "netns", "delete", id]));
      }
    },
  };
}

interface Conflist {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly { readonly type: string; readonly capabilities?: unknown }[];
}

interface Attachment {
  readonly conflist: Conflist;
  readonly id: string;
}

async function addNetwork(attachment: Attachment): Promise<unknown> {
  let result: unknown;
  for (const plugin of attachment.conflist.plugins) {
    result = JSON.parse(await callPlugin("ADD", attachment, plugin, result)) as unknown;
  }
  return result;
}

async function deleteNetwork(attachment: Attachment, result: unknown): Promise<void> {
  for (const plugin of attachment.conflist.plugins.toReversed()) await callPlugin("DEL", attachment, plugin, result);
}

function callPlugin(
  command: "ADD" | "DEL",
  attachment: Attachment,
  plugin: Conflist["plugins"][number],
  prevResult: unknown,
): Promise<string> {
  const { cniVersion, name } = attachment.conflist;
  const { capabilities: _, ...rest } = plugin;
  return runCommand([path.join(pluginDirectory, plugin.type)], {
    input: JSON.stringify({ ...rest, cniVersion, name, ...(prevResult === undefined ? {} : { prevResult }) }),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: attachment.id,
      CNI_NETNS: `/run/netns/${attachment.id}`,
      CNI_IFNAME: "eth0",
      CNI_PATH: pluginDirectory,
      CNI_ARGS: "IgnoreUnknown=1",
    },
  });
}

interface Container {
  readonly id: string;
  readonly bundle: string;
  readonly stateRoot: string;
}

async function runContainer(container: Container, recorder: Recorder): Promise<void> {
  const { id, bundle } = container;
  const pidFile = path.join(bundle, "pid");
  const create = ["create", `--bundle=${bundle}`, `--pid-file=${pidFile}`, id] as const;
  await recorder.time("crun create", () => callCrun(container, create));
  try {
    const pid = Number(await readFile(pidFile, "utf8"));
    await recorder.time("crun start", () => callCrun(container, ["start", id]));
    await waitUntil("the container to be ready", async () =>
      (await readFile(path.join(bundle, "output"), "utf8")).includes("ready") ? true : undefined,
    );
    await recorder.time("crun exec", () => callCrun(container, ["exec", id, "true"]));
    await recorder.time("SIGTERM", () => endProcess(pid));
  } finally {
    await recorder.time("crun delete", () => callCrun(container, ["delete", "--force", id]));
  }
}

/** Its output goes to a file: the container keeps it open, so a pipe would not end. */
async function callCrun(container: Container, args: readonly string[]): Promise<void> {
  const output = path.join(container.bundle, "output");
  await using file = await open(output, "a");
  const child = spawn("crun", [`--root=${container.stateRoot}`, ...args], { stdio: ["ignore", file.fd, file.fd] });
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? -1));
  });
  if (exitCode !== 0)
    throw new Error(`crun ${args.join(" ")} ended with ${exitCode}: ${await readFile(output, "utf8")}`);
}

/** From SIGTERM until the process is a zombie or gone. */
async function endProcess(pid: number): Promise<void> {
  process.kill(pid, "SIGTERM");
  for (;;) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ") Z");
    if (/\) [ZX]/u.test(stat)) return;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** What a runtime gets for an unprivileged container that joins its pod's network. */
function containerSpec(id: string, cgroupsPath: string, root: string): object {
  const names = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];
  const capabilities = names.map((name) => `CAP_${name}`);
  const quiet = ["nosuid", "noexec", "nodev"];
  return {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args: sleeper,
      env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
      cwd: "/",
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    },
    root: { path: root, readonly: true },
    hostname: "floor",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: quiet },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=65536k"] },
      { destination: "/dev/pts", type: "devpts", source: "devpts", options: ["nosuid", "noexec", "newinstance"] },
      { destination: "/dev/shm", type: "tmpfs", source: "shm", options: [...quiet, "mode=1777", "size=65536k"] },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: quiet },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: [...quiet, "ro"] },
      { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: [...quiet, "relatime", "ro"] },
    ],
    linux: {
      cgroupsPath,
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "network", path: `/run/netns/${id}` },
      ],
      maskedPaths: ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
    },
  };
}
