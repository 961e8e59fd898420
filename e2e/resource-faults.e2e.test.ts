import { mkdir, readFile, rename, rm, truncate, unlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { runCommand, tryCommand } from "./harness/run-command.ts";
import { waitUntil } from "./harness/wait-until.ts";

let root: string;
let state: string;
const cgroupName = `berth-faults-${process.pid}`;
const cgroups = ["pids", "memory"].map((controller) => path.join("/sys/fs/cgroup", controller, cgroupName));

/** The daemon's directories are small file systems of their own, and it has cgroups of its own, to be made scarce. */
const berth = useDaemon({
  prepare: async (workspace, resources) => {
    ({ root, state } = workspace);
    for (const directory of [root, state]) {
      await mkdir(directory, { mode: 0o711 });
      await runCommand(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "berth-small", directory]);
      resources.defer(() => runCommand(["umount", "--lazy", directory]).then(() => undefined));
    }
    for (const cgroup of cgroups) {
      await mkdir(cgroup, { recursive: true });
      resources.defer(() => removeCgroup(cgroup));
    }
    const enter = cgroups.map((cgroup) => `echo $$ > ${cgroup}/cgroup.procs`).join("; ");
    return { launcher: ["sh", "-c", `${enter}; exec "$@"`, "sh"] };
  },
});

/** Its last process needs a moment to go. */
async function removeCgroup(cgroup: string): Promise<void> {
  const remove = async (): Promise<true | undefined> =>
    (await tryCommand(["rmdir", cgroup])).exitCode === 0 ? true : undefined;
  await waitUntil(`an empty ${cgroup}`, remove);
}

/** A pod with one running container, and a call that would make another. */
async function runOne(): Promise<{ readonly podSandboxId: string; readonly containerId: string }> {
  const pod = await berth.runPod();
  return { podSandboxId: pod.id, containerId: await berth.startContainer(pod) };
}

async function expectAllIsWell(): Promise<void> {
  const { podSandboxId, containerId } = await runOne();
  expect(await berth.shell(containerId, "echo well")).toBe("well");
  await berth.removePod(podSandboxId);
}

async function fill(directory = root): Promise<() => Promise<void>> {
  const file = path.join(directory, "ballast");
  expect((await tryCommand(["dd", "if=/dev/zero", `of=${file}`, "bs=64k"])).exitCode).not.toBe(0);
  expect(
    (await tryCommand(["dd", "if=/dev/zero", `of=${file}`, "bs=4k", "oflag=append", "conv=notrunc"])).exitCode,
  ).not.toBe(0);
  return () => rm(file, { force: true });
}

async function makeReadOnly(directory = root): Promise<() => Promise<void>> {
  const remount = async (): Promise<true | undefined> =>
    (await tryCommand(["mount", "-o", "remount,ro", directory])).exitCode === 0 ? true : undefined;
  await waitUntil("nobody to be writing", remount); // what starts a container may not have closed its last file
  return () => runCommand(["mount", "-o", "remount,rw", directory]).then(() => undefined);
}

describe("a full disk", () => {
  test("refuses new pods and containers with its reason, and leaves nothing of them", async () => {
    const pod = await berth.runPod();
    const empty = await fill();
    onTestFinished(empty);
    const config = podConfig(berth.workspace, "no-room");
    await berth.expectFailure("RunPodSandbox", { config }, Code.ResourceExhausted, /no space left/u);
    const container = containerConfig("no-room", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config: container, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.ResourceExhausted, /no space left/u);
    await empty();
    const { containerId } = await berth.call("CreateContainer", request);
    await berth.call("StartContainer", { containerId });
  });

  test("does not keep pods from being stopped and removed, or who would ever make room", async () => {
    const { podSandboxId, containerId } = await runOne();
    const other = await runOne();
    const empty = await fill();
    onTestFinished(empty);
    await berth.call("StopContainer", { containerId, timeout: 0n });
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 137 });
    await berth.call("RemoveContainer", { containerId });
    await berth.removePod(podSandboxId);
    await berth.removePod(other.podSandboxId);
    await empty();
    await expectAllIsWell();
  });

  test("fails a pull with its reason and leaves the store as it was", async () => {
    const before = await berth.call("ListImages");
    const empty = await fill();
    onTestFinished(empty);
    const image = { image: berth.image("layers") };
    await berth.expectFailure("PullImage", { image }, Code.ResourceExhausted, /no space left/u);
    expect(await berth.call("ListImages")).toEqual(before);
    await empty();
  });
});

test("a read-only disk: running containers are listed, stopped and run commands; what needs the disk says why", async () => {
  const { podSandboxId, containerId } = await runOne();
  const writable = await makeReadOnly();
  onTestFinished(writable);
  expect((await berth.call("ListContainers")).containers.map(({ id }) => id)).toContain(containerId);
  expect(await berth.shell(containerId, "echo here")).toBe("here");
  const config = podConfig(berth.workspace, "read-only");
  await berth.expectFailure("RunPodSandbox", { config }, Code.FailedPrecondition, /read-only file system/u);
  await berth.call("StopContainer", { containerId, timeout: 0n });
  expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_EXITED");
  await expect(berth.call("RemoveContainer", { containerId })).rejects.toMatchObject({ code: Code.FailedPrecondition });
  await writable();
  await berth.removePod(podSandboxId);
});

test("a state directory that has become read-only: what runs is listed and stopped; what needs it says why", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  const writable = await makeReadOnly(state);
  onTestFinished(writable);
  expect((await berth.call("ListContainers")).containers.map(({ id }) => id)).toContain(containerId);
  const readOnly = [Code.FailedPrecondition, /read-only file system/u] as const;
  await berth.expectFailure("RunPodSandbox", { config: podConfig(berth.workspace, "read-only") }, ...readOnly);
  const config = containerConfig("read-only", berth.image("busybox"));
  const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
  const [code, message] = readOnly;
  await expect(berth.call("CreateContainer", request)).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message) as string,
  });
  await berth.call("StopContainer", { containerId, timeout: 0n });
  expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_EXITED");
  await writable();
  await berth.call("CreateContainer", request);
  await berth.removePod(pod.id);
});

describe.each([
  ["a full disk", () => fill()],
  ["a full state directory", () => fill(state)],
  ["a read-only disk", () => makeReadOnly()],
])("a daemon that starts on %s", (_, spoil) => {
  test("knows what runs and what has ended, and can stop it", async () => {
    const { podSandboxId, containerId } = await runOne();
    const pod = await berth.runPod();
    const ended = await berth.startContainer(pod, { command: ["sh", "-c", "exit 4"] });
    await berth.waitForExit(ended);
    const before = [await berth.containerStatus(containerId), await berth.containerStatus(ended)];
    await berth.daemon.stop("SIGKILL");
    const mend = await spoil();
    onTestFinished(mend);
    await berth.daemon.start();
    expect([await berth.containerStatus(containerId), await berth.containerStatus(ended)]).toEqual(before);
    await berth.call("StopContainer", { containerId, timeout: 0n });
    expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_EXITED");
    await mend();
    await berth.removePod(podSandboxId);
    await berth.removePod(pod.id);
    await expectAllIsWell();
  });
});

describe("a daemon without", () => {
  const limit = (controller: string, file: string, value: string): Promise<void> =>
    writeFile(path.join("/sys/fs/cgroup", controller, cgroupName, file), value);
  const readLimit = (controller: string, file: string): Promise<string> =>
    readFile(path.join("/sys/fs/cgroup", controller, cgroupName, file), "utf8");
  afterEach(() => limit("pids", "pids.max", "max"));

  test("room for another process says so and recovers", async () => {
    const { podSandboxId, containerId } = await runOne();
    await limit("pids", "pids.max", "1"); // of its present number some would be free as soon as threads at rest end
    const config = podConfig(berth.workspace, "no-pids");
    await expect(berth.call("RunPodSandbox", { config })).rejects.toMatchObject({ code: Code.ResourceExhausted });
    await expect(berth.call("ExecSync", { containerId, cmd: ["true"] })).rejects.toMatchObject({
      code: Code.ResourceExhausted,
    });
    expect((await berth.call("ListContainers")).containers.map(({ id }) => id)).toContain(containerId);
    await limit("pids", "pids.max", "max");
    expect(await berth.shell(containerId, "echo again")).toBe("again");
    await berth.removePod(podSandboxId);
    await expectAllIsWell();
  });

  test("free file descriptors says so and recovers", async () => {
    const { podSandboxId, containerId } = await runOne();
    const { pid } = berth.daemon;
    const before = await runCommand(["prlimit", "--pid", String(pid), "--nofile", "--output=SOFT", "--noheadings"]);
    const setLimit = (soft: string): Promise<string> =>
      runCommand(["prlimit", "--pid", String(pid), `--nofile=${soft.trim()}:`]);
    await setLimit("3"); // those that are open stay
    onTestFinished(() => setLimit(before).then(() => undefined));
    const config = podConfig(berth.workspace, "no-descriptors");
    await expect(berth.call("RunPodSandbox", { config })).rejects.toMatchObject({ code: Code.ResourceExhausted });
    await expect(berth.call("ExecSync", { containerId, cmd: ["true"] })).rejects.toMatchObject({
      code: Code.ResourceExhausted,
    });
    expect((await berth.call("ListContainers")).containers.map(({ id }) => id)).toContain(containerId);
    await setLimit(before);
    await berth.removePod(podSandboxId);
    await expectAllIsWell();
  });

  test("memory to spare loses nothing, even where the kernel kills it", async () => {
    const { podSandboxId, containerId } = await runOne();
    const used = (await readLimit("memory", "memory.usage_in_bytes")).trim();
    await limit("memory", "memory.limit_in_bytes", used);
    const { exited } = berth.daemon;
    await Promise.allSettled(Array.from({ length: 5 }, () => berth.runPod()));
    const isAlive = await berth.call("Version").then(
      () => true,
      () => false,
    );
    await limit("memory", "memory.limit_in_bytes", "-1");
    if (!isAlive) {
      expect(await exited).toBe("SIGKILL");
      await berth.daemon.start();
    }
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_RUNNING" });
    expect(await berth.shell(containerId, "echo still here")).toBe("still here");
    await berth.removePod(podSandboxId);
    for (const { id } of (await berth.call("ListPodSandbox")).items) await berth.removePod(id);
    await expectAllIsWell();
  });
});

test("a record that is cut short or is garbage is put aside with a warning, and the rest is served", async () => {
  const kept = await runOne();
  const cut = await runOne();
  const garbled = await runOne();
  await berth.daemon.stop("SIGKILL");
  await truncate(path.join(root, "containers", `${cut.containerId}.json`), 100);
  await writeFile(path.join(root, "pod-sandboxes", `${garbled.podSandboxId}.json`), "\0\0\0\0");
  await berth.daemon.start();

  expect(await berth.shell(kept.containerId, "echo kept")).toBe("kept");
  const { containers } = await berth.call("ListContainers");
  expect(containers.map(({ id }) => id).toSorted()).toEqual([kept.containerId, garbled.containerId].toSorted());
  expect((await berth.call("ListPodSandbox")).items.map(({ id }) => id)).not.toContain(garbled.podSandboxId);
  const log = await berth.daemon.readLog();
  expect(log).toContain("unreadable container record put aside");
  expect(log).toContain("unreadable pod sandbox record put aside");
  for (const [kind, id] of [
    ["containers", cut.containerId],
    ["pod-sandboxes", garbled.podSandboxId],
  ] as const) {
    await unlink(path.join(root, kind, `${id}.json.corrupt`)); // is there
  }
  await berth.call("RemoveContainer", { containerId: garbled.containerId });
});

test("what is lost in an overflow of the kernel's queue of file events is found all the same", async () => {
  const { podSandboxId, containerId } = await runOne();
  const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
  const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
  const watched = berth.workspace.cniConfDir;
  const conflist = path.join(watched, "10-berth.conflist");
  process.kill(berth.daemon.pid, "SIGSTOP");
  onTestFinished(() => void process.kill(berth.daemon.pid, "SIGCONT"));
  const queue = Number(await readFile("/proc/sys/fs/inotify/max_queued_events", "utf8"));
  const flood = `for i in $(seq ${queue}); do : > ${watched}/one; : > ${watched}/other; done; rm ${watched}/one ${watched}/other`;
  await runCommand(["sh", "-c", flood]); // the same event twice in a row would be one
  await rename(conflist, `${conflist}.away`);
  onTestFinished(() => rename(`${conflist}.away`, conflist).catch(() => undefined));
  process.kill(pid, "SIGKILL");
  process.kill(berth.daemon.pid, "SIGCONT");
  expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 137 });
  await waitUntil("the network to be not ready", async () => ((await isNetworkReady()) ? undefined : true));
  await rename(`${conflist}.away`, conflist);
  await waitUntil("the network to be ready again", async () => (await isNetworkReady()) || undefined);
  await berth.removePod(podSandboxId);
});

async function isNetworkReady(): Promise<boolean> {
  const { status } = await berth.call("Status");
  return status?.conditions.find(({ type }) => type === "NetworkReady")?.status ?? false;
}
