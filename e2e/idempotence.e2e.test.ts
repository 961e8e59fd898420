import { describe, expect, test } from "vitest";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();
const absent = "f".repeat(64);

describe("stopping and removing what does not exist", () => {
  test("StopPodSandbox and RemovePodSandbox succeed", async () => {
    await berth.call("StopPodSandbox", { podSandboxId: absent });
    await berth.call("RemovePodSandbox", { podSandboxId: absent });
  });
  test("StopContainer and RemoveContainer succeed", async () => {
    await berth.call("StopContainer", { containerId: absent });
    await berth.call("RemoveContainer", { containerId: absent });
  });
  test("RemoveImage succeeds, and ImageStatus is empty", async () => {
    await berth.call("RemoveImage", { image: { image: "registry.example/nothing:1" } });
    const { image } = await berth.call("ImageStatus", { image: { image: "registry.example/nothing:1" } });
    expect(image).toBeNull();
  });
});

test("StopPodSandbox and RemovePodSandbox can be repeated", async () => {
  const { id: podSandboxId } = await berth.runPod();
  await berth.call("StopPodSandbox", { podSandboxId });
  await berth.call("StopPodSandbox", { podSandboxId });
  await berth.call("RemovePodSandbox", { podSandboxId });
  await berth.call("RemovePodSandbox", { podSandboxId });
  await berth.call("StopPodSandbox", { podSandboxId });
});

test("StopContainer and RemoveContainer can be repeated", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  await berth.call("StopContainer", { containerId, timeout: 5n });
  const { finishedAt } = await berth.containerStatus(containerId);
  await berth.call("StopContainer", { containerId, timeout: 5n });
  expect((await berth.containerStatus(containerId)).finishedAt).toBe(finishedAt);
  await berth.call("RemoveContainer", { containerId });
  await berth.call("RemoveContainer", { containerId });
});

test("RunPodSandbox with the same metadata answers with the pod that is there", async () => {
  const config = podConfig(berth.workspace, "twice");
  const calls = await Promise.all([1, 2, 3].map(() => berth.call("RunPodSandbox", { config })));
  const ids = new Set(calls.map((answer) => answer.podSandboxId));
  expect(ids.size).toBe(1);
  const [podSandboxId = ""] = ids;
  expect((await berth.call("RunPodSandbox", { config })).podSandboxId).toBe(podSandboxId);
  expect((await berth.call("ListPodSandbox")).items.filter((pod) => pod.metadata?.name === "twice")).toHaveLength(1);
  await berth.removePod(podSandboxId);
});

test("CreateContainer with the same metadata answers with the container that is there", async () => {
  const pod = await berth.runPod();
  const config = containerConfig("twice", berth.image("busybox"));
  const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
  const calls = await Promise.all([1, 2, 3].map(() => berth.call("CreateContainer", request)));
  expect(new Set(calls.map((answer) => answer.containerId)).size).toBe(1);
  const { containers } = await berth.call("ListContainers", { filter: { podSandboxId: pod.id } });
  expect(containers).toHaveLength(1);
});

test("a caller that gave up finds its pod by asking again", async () => {
  const config = podConfig(berth.workspace, "patient");
  await expect(berth.call("RunPodSandbox", { config }, { timeoutMs: 15 })).rejects.toMatchObject({ code: 4 });
  const { podSandboxId } = await berth.call("RunPodSandbox", { config });
  const named = (await berth.call("ListPodSandbox")).items.filter((pod) => pod.metadata?.name === "patient");
  expect(named.map((pod) => pod.id)).toEqual([podSandboxId]);
  await berth.removePod(podSandboxId);
});

test("another attempt of the same pod is another pod", async () => {
  const first = podConfig(berth.workspace, "again");
  const second = { ...first, metadata: { ...first.metadata, attempt: 1 } };
  const one = await berth.call("RunPodSandbox", { config: first });
  const two = await berth.call("RunPodSandbox", { config: second });
  expect(one.podSandboxId).not.toBe(two.podSandboxId);
  await berth.removePod(one.podSandboxId);
  await berth.removePod(two.podSandboxId);
});

test("an id's beginning is enough where it is the only one", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  const { status } = await berth.call("ContainerStatus", { containerId: containerId.slice(0, 20) });
  expect(status?.id).toBe(containerId);
});
