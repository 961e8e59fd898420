import { open, readdir } from "node:fs/promises";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { type MoodyProgram, writeMoodyProgram } from "./harness/moody-program.ts";
import { pluginDirectory } from "./harness/network.ts";
import { runCommand } from "./harness/run-command.ts";

let runtime: MoodyProgram;
let portmap: MoodyProgram;
const berth = useDaemon({
  async prepare({ temporary }) {
    runtime = await writeMoodyProgram(temporary, "crun", "/usr/bin/crun");
    portmap = await writeMoodyProgram(temporary, "portmap", path.join(pluginDirectory, "portmap"));
    return { pluginDirectory: temporary, runtimes: { crun: { path: runtime.path } } };
  },
});
afterEach(() => heal());

async function heal(): Promise<void> {
  await Promise.all([runtime.refuse(), portmap.refuse()]);
}

/** The one pod of a name, as List tells of it. */
async function findPod(name: string): Promise<{ readonly id: string; readonly state: string } | undefined> {
  const { items } = await berth.call("ListPodSandbox");
  return items.find(({ metadata }) => metadata?.name === name);
}

test("a network whose second plugin fails is undone whole", async () => {
  await portmap.refuse("ADD");
  await berth.expectFailure(
    "RunPodSandbox",
    { config: podConfig(berth.workspace, "unmapped") },
    Code.Internal,
    /told to fail/u,
  );
  expect(await findPod("unmapped")).toBeUndefined();
});

test.each(["at once", "after a restart"])(
  "what a failed RunPodSandbox could not undo is left for StopPodSandbox, %s",
  async (when) => {
    const before = await berth.findTraces();
    const name = `half-${when === "at once" ? "one" : "two"}`;
    await portmap.refuse("ADD", "DEL");
    await expect(berth.call("RunPodSandbox", { config: podConfig(berth.workspace, name) })).rejects.toThrow(
      "told to fail",
    );
    const left = await findPod(name);
    expect(left).toMatchObject({ state: "SANDBOX_NOTREADY" });
    const podSandboxId = left?.id ?? "";
    await expect(berth.call("StopPodSandbox", { podSandboxId })).rejects.toThrow("told to fail");
    if (when === "after a restart") {
      await berth.daemon.stop("SIGKILL");
      await berth.daemon.start();
      expect(await findPod(name)).toMatchObject({ id: podSandboxId, state: "SANDBOX_NOTREADY" });
      await expect(berth.call("RemovePodSandbox", { podSandboxId })).rejects.toThrow("told to fail");
    }
    await heal();
    await berth.call("StopPodSandbox", { podSandboxId });
    await berth.call("RemovePodSandbox", { podSandboxId });
    await berth.expectNothingNew(before);
  },
);

test("a pod whose network cannot be taken down is not ready, and goes with the next call", async () => {
  const before = await berth.findTraces();
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  await portmap.refuse("DEL");
  await expect(berth.call("StopPodSandbox", { podSandboxId: pod.id })).rejects.toThrow("told to fail");
  expect(await findPod(pod.config.metadata?.name ?? "")).toMatchObject({ state: "SANDBOX_NOTREADY" });
  expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED" });
  await expect(berth.call("RemovePodSandbox", { podSandboxId: pod.id })).rejects.toThrow("told to fail");
  await heal();
  await berth.call("RemovePodSandbox", { podSandboxId: pod.id });
  await berth.expectNothingNew(before);
});

test("a runtime that fails to create leaves nothing, and the same create succeeds later", async () => {
  const pod = await berth.runPod();
  await runtime.refuse("create");
  const config = containerConfig("late", berth.image("busybox"));
  const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
  await berth.expectFailure("CreateContainer", request, Code.Internal, /told to fail/u);
  await heal();
  const { containerId } = await berth.call("CreateContainer", request);
  await berth.call("StartContainer", { containerId });
  expect(await berth.shell(containerId, "echo here")).toBe("here");
});

test("a runtime that fails to create and to delete leaves nothing", async () => {
  const pod = await berth.runPod();
  await runtime.refuse("create", "delete");
  const config = containerConfig("never", berth.image("busybox"));
  const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
  await berth.expectFailure("CreateContainer", request, Code.Internal, /told to fail/u);
});

test("a pod with a pause process whose runtime fails to start it is undone whole", async () => {
  await runtime.refuse("create");
  const linux = { securityContext: { namespaceOptions: { pid: "POD" as const } } };
  const config = podConfig(berth.workspace, "no-pause", { linux });
  await berth.expectFailure("RunPodSandbox", { config }, Code.Internal, /told to fail/u);
});

test("a runtime that fails to delete does not keep a container", async () => {
  const pod = await berth.runPod();
  const before = await berth.findTraces();
  const containerId = await berth.startContainer(pod);
  await runtime.refuse("delete");
  await berth.call("RemoveContainer", { containerId });
  await berth.expectNothingNew(before);
});

test("somebody who is in a container's root filesystem does not keep it", async () => {
  const pod = await berth.runPod();
  const before = await berth.findTraces();
  const containerId = await berth.startContainer(pod);
  await using file = await open(path.join(berth.workspace.state, "containers", containerId, "rootfs/etc/passwd"));
  await berth.call("RemoveContainer", { containerId });
  expect((await file.stat()).nlink).toBeGreaterThanOrEqual(0);
  await berth.expectNothingNew(before);
});

test("what cannot be deleted keeps the container's record, for the next call", async () => {
  const pod = await berth.runPod();
  const before = await berth.findTraces();
  const containerId = await berth.startContainer(pod);
  const upper = path.join(berth.workspace.root, "containers", containerId, "upper");
  await runCommand(["mkdir", path.join(upper, "held")]);
  await runCommand(["mount", "-t", "tmpfs", "none", path.join(upper, "held")]);
  await expect(berth.call("RemoveContainer", { containerId })).rejects.toMatchObject({ code: Code.Internal });
  expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED" });
  await expect(berth.call("RemovePodSandbox", { podSandboxId: pod.id })).rejects.toMatchObject({ code: Code.Internal });
  await runCommand(["umount", path.join(upper, "held")]);
  await berth.call("RemoveContainer", { containerId });
  expect(await readdir(path.join(berth.workspace.root, "containers"))).toEqual([]);
  const isOfPod = (line: string): boolean => line.includes(pod.id);
  expect((await berth.findTraces()).mounts.filter((line) => !isOfPod(line))).toEqual(
    before.mounts.filter((line) => !isOfPod(line)),
  );
});
