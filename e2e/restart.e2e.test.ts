import { readdir, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  test.each(["SIGTERM", "SIGKILL"] as const)("pods and containers outlive %s and are known again", async (signal) => {
    const linux = { securityContext: { namespaceOptions: { pid: "POD" as const } } };
    const pod = await berth.runPod({ runtimeHandler, config: { linux, labels: { kept: "yes" } } });
    const running = await berth.startContainer(pod, { annotations: { kept: "too" } });
    const created = await berth.createContainer(pod);
    const ending = await berth.startContainer(pod, { command: ["sh", "-c", "echo begun; sleep 1; echo over; exit 5"] });
    await berth.waitForLog(ending, "begun");
    const before = await berth.containerStatus(running);
    const podBefore = (await berth.call("PodSandboxStatus", { podSandboxId: pod.id })).status;

    const outcome = await berth.daemon.stop(signal);
    expect(outcome).toBe(signal === "SIGTERM" ? 0 : "SIGKILL");
    const exits = path.join(berth.workspace.state, "runtimes", runtimeHandler, "state/exits");
    await waitUntil(
      "the exit in the daemon's absence",
      async () => (await readdir(exits)).includes(ending) || undefined,
    );
    await berth.daemon.start();

    expect((await berth.call("PodSandboxStatus", { podSandboxId: pod.id })).status).toEqual(podBefore);
    expect(await berth.containerStatus(running)).toEqual(before);
    expect(await berth.containerStatus(created)).toMatchObject({ state: "CONTAINER_CREATED" });
    const ended = await berth.containerStatus(ending);
    expect(ended).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 5, reason: "Error" });
    expect(ended.finishedAt).toBeLessThan(BigInt(Date.now()) * 1_000_000n);
    expect(await berth.readLog(ending)).toEqual(["stdout begun", "stdout over"]);

    expect(await berth.shell(running, "echo still here")).toBe("still here");
    await berth.call("StartContainer", { containerId: created });
    expect(await berth.shell(created, "hostname")).toBe(pod.config.hostname);
    await berth.call("StopContainer", { containerId: running, timeout: 10n });
    expect(await berth.containerStatus(running)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 0 });
  });
});

test("a container killed while the daemon runs is seen", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
  const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
  process.kill(pid, "SIGKILL");
  expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 137, reason: "Error" });
});

test("an address whose owner a power cut has wiped out is given back", async () => {
  await berth.runPod();
  const [network = ""] = await readdir(berth.daemon.workspace.ipamDir);
  const directory = path.join(berth.daemon.workspace.ipamDir, network);
  const leases = await readdir(directory);
  const lost = path.join(directory, "10.255.255.254");
  await writeFile(lost, "");
  await utimes(lost, 1, 1);
  await berth.daemon.stop("SIGKILL");
  await berth.daemon.start();
  await waitUntil("the lease's end", async () =>
    (await readdir(directory)).includes(path.basename(lost)) ? undefined : true,
  );
  expect(await readdir(directory)).toEqual(leases);
});

test("images are known again after a restart", async () => {
  const before = await berth.call("ListImages");
  await berth.daemon.stop("SIGKILL");
  await berth.daemon.start();
  expect(await berth.call("ListImages")).toEqual(before);
});

test("a pod of an earlier life can be removed", async () => {
  const pod = await berth.runPod();
  await berth.startContainer(pod);
  const { status } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
  await berth.daemon.stop("SIGKILL");
  await berth.daemon.start();
  await berth.removePod(pod.id);
  const { items } = await berth.call("ListPodSandbox", { filter: { id: pod.id } });
  expect(items).toEqual([]);
  expect(status?.network?.ip).not.toBe("");
});

test("a daemon killed in the middle of a create leaves nothing that its next life does not clear", async () => {
  const before = await berth.findTraces();
  const { podConfig } = await import("./harness/configs.ts");
  for (const afterMs of [5, 20, 60, 120]) {
    const config = podConfig(berth.workspace, `cut-${afterMs}`);
    const call = berth.call("RunPodSandbox", { config }).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    await berth.daemon.stop("SIGKILL");
    await call;
    await berth.daemon.start();
  }
  for (const { id } of (await berth.call("ListPodSandbox")).items) await berth.removePod(id);
  await berth.expectNothingNew(before);
});

test("a command that was running when the daemon died is ended by the next one", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  const seconds = `8${Math.floor(Math.random() * 1e8)}`;
  const isRunning = async (): Promise<boolean> => (await berth.shell(containerId, "ps -o args")).includes(seconds);
  const caller = berth.call("ExecSync", { containerId, cmd: ["sleep", seconds] }).catch(() => undefined);
  await waitUntil("the command", async () => (await isRunning()) || undefined);
  await berth.daemon.stop("SIGKILL");
  await caller;
  await berth.daemon.start();
  expect(await isRunning()).toBe(false);
});

test("a stop goes on under the next daemon: one signal, the deadline it had, and no later one", async () => {
  const pod = await berth.runPod();
  const command = ["sh", "-c", "trap 'echo told' TERM; echo begun; while :; do sleep 0.1; done"];
  const containerId = await berth.startContainer(pod, { command });
  await berth.waitForLog(containerId, "begun");
  const askedAt = performance.now();
  const caller = berth.call("StopContainer", { containerId, timeout: 6n }).catch(() => undefined);
  await berth.waitForLog(containerId, "told");
  await new Promise((resolve) => setTimeout(resolve, 500));
  await berth.daemon.stop("SIGKILL");
  await caller;
  await berth.daemon.start();
  expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_RUNNING" });

  await berth.call("StopContainer", { containerId, timeout: 60n });
  const tookMs = performance.now() - askedAt;
  expect(tookMs).toBeGreaterThan(5_900);
  expect(tookMs).toBeLessThan(30_000);
  expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 137 });
  expect(await berth.readLog(containerId)).toEqual(["stdout begun", "stdout told"]);
});

test("a stop that nobody asks for again is brought to its end all the same", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod, {
    command: ["sh", "-c", "trap : TERM; while :; do sleep 1; done"],
  });
  const caller = berth.call("StopContainer", { containerId, timeout: 3n }).catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await berth.daemon.stop("SIGKILL");
  await caller;
  await berth.daemon.start();
  expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 137 });
});
