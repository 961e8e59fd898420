import { readdir, rmdir } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

/** A pod that has a cgroup to itself, which goes after it: kubelet makes and removes one for each. */
function runKubeletPod(name: string) {
  const cgroupParent = `${berth.workspace.cgroupParent}/${name}`;
  onTestFinished(async () => {
    for (const hierarchy of await readdir("/sys/fs/cgroup"))
      await rmdir(join("/sys/fs/cgroup", hierarchy, cgroupParent)).catch(() => undefined);
  });
  return berth.runPod({ config: { linux: { cgroupParent } } });
}

async function podStats(podSandboxId: string): Promise<cri.LinuxPodSandboxStats> {
  const { stats } = await berth.call("PodSandboxStats", { podSandboxId });
  if (!stats?.linux) throw new Error(`no stats of pod ${podSandboxId}`);
  return stats.linux;
}

function value(wrapped: cri.UInt64Value | null | undefined): bigint {
  if (!wrapped) throw new Error("a value is missing");
  return wrapped.value;
}

test("a pod counts its own cgroup, its processes and its containers", async () => {
  const pod = await runKubeletPod("whole");
  const busy = await berth.startContainer(pod, { command: ["sh", "-c", "while :; do :; done"] });
  const idle = await berth.startContainer(pod);
  const first = await podStats(pod.id);
  const stats = await waitUntil("a quarter of a second of work", async () => {
    const later = await podStats(pod.id);
    return value(later.cpu?.usageCoreNanoSeconds) > value(first.cpu?.usageCoreNanoSeconds) + 250_000_000n
      ? later
      : undefined;
  });
  const oldestNs = BigInt(Date.now() - 5_000) * 1_000_000n;
  for (const part of [stats.cpu, stats.memory, stats.network, stats.process])
    expect(part?.timestamp).toBeGreaterThan(oldestNs);
  expect(value(stats.cpu?.usageNanoCores)).toBeGreaterThan(10_000_000n);
  expect(value(stats.memory?.workingSetBytes)).toBeGreaterThan(0n);
  expect(value(stats.memory?.usageBytes)).toBeGreaterThanOrEqual(value(stats.memory?.workingSetBytes));
  expect(value(stats.process?.processCount)).toBeGreaterThanOrEqual(2n);

  expect(stats.containers.map((each) => each.attributes?.id)).toEqual([busy, idle]);
  const [workOfBusy = 0n, workOfIdle] = stats.containers.map(({ cpu }) => value(cpu?.usageCoreNanoSeconds));
  expect(workOfBusy).toBeGreaterThan(workOfIdle ?? workOfBusy);
  const used = stats.containers.reduce((sum, { memory }) => sum + value(memory?.usageBytes), 0n);
  expect(value(stats.memory?.usageBytes)).toBeGreaterThanOrEqual(used - 1_048_576n);
});

test("traffic of the pod's interface is counted, with no process in the pod", async () => {
  const pod = await runKubeletPod("quiet");
  const { status } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
  const before = await podStats(pod.id);
  expect(before.network?.defaultInterface?.name).toBe("eth0");
  expect(before.network?.interfaces.map(({ name }) => name)).not.toContain("lo");
  const refused = connect({ host: status?.network?.ip ?? "", port: 9 });
  await new Promise((resolve) => refused.once("error", resolve));
  const after = await podStats(pod.id);
  const received = (stats: cri.LinuxPodSandboxStats) => value(stats.network?.defaultInterface?.rxBytes);
  expect(received(after)).toBeGreaterThan(received(before));
});

test("pods that share a cgroup parent count what is in them, not each other", async () => {
  const [one, other] = [await berth.runPod(), await berth.runPod()];
  await berth.startContainer(one, { command: ["sleep", "1000"] });
  const eater = await berth.startContainer(other, {
    command: ["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=32; echo eaten; exec sleep 1000"],
  });
  await berth.waitForLog(eater, "eaten");
  expect(value((await podStats(other.id)).memory?.usageBytes)).toBeGreaterThan(32n << 20n);
  expect(value((await podStats(one.id)).memory?.usageBytes)).toBeLessThan(16n << 20n);
  expect(value((await podStats(one.id)).process?.processCount)).toBe(1n);
});

test("a pause process is one of its pod's processes", async () => {
  const pid = { securityContext: { namespaceOptions: { pid: "POD" as const } } };
  const pod = await berth.runPod({ config: { linux: pid } });
  await berth.runPod(); // whose cgroup parent is the same
  const empty = await podStats(pod.id);
  expect(value(empty.process?.processCount)).toBe(1n);
  await berth.startContainer(pod, { command: ["sleep", "1000"], linux: pid });
  const stats = await podStats(pod.id);
  expect(value(stats.process?.processCount)).toBe(2n);
  expect(value(stats.memory?.usageBytes)).toBeGreaterThan(value(stats.containers[0]?.memory?.usageBytes));
});

test("a pod on the host's network has no network of its own; a stopped one only what it wrote", async () => {
  const pod = await berth.runPod({
    config: { hostname: "", linux: { securityContext: { namespaceOptions: { network: "NODE", pid: "CONTAINER" } } } },
  });
  const containerId = await berth.startContainer(pod);
  expect((await podStats(pod.id)).network).toBeNull();
  await berth.call("StopPodSandbox", { podSandboxId: pod.id });
  const stopped = await podStats(pod.id);
  expect(stopped).toMatchObject({ cpu: null, memory: null, network: null, process: null });
  expect(stopped.containers).toMatchObject([{ attributes: { id: containerId }, cpu: null, memory: null }]);
  expect(stopped.containers[0]?.writableLayer?.usedBytes).not.toBeNull();
  const { stats } = await berth.call("ListContainerStats", { filter: { id: containerId } });
  expect(stats).toEqual(stopped.containers);
});

test("stats can be filtered by id and labels; an unknown pod is NotFound", async () => {
  const labels = { app: "stats" };
  const pod = await berth.runPod({ config: { labels } });
  await berth.runPod();
  const list = async (filter: Init<cri.PodSandboxStatsFilter> | null) =>
    (await berth.call("ListPodSandboxStats", { filter })).stats.map(({ attributes }) => attributes?.id);
  expect(await list({ labelSelector: labels })).toEqual([pod.id]);
  expect(await list({ id: pod.id.slice(0, 13) })).toEqual([pod.id]);
  expect(await list({ id: pod.id, labelSelector: { app: "other" } })).toEqual([]);
  expect(await list(null)).toHaveLength(2);
  const { stats } = await berth.call("PodSandboxStats", { podSandboxId: pod.id });
  expect(stats?.attributes).toEqual({ id: pod.id, metadata: pod.config.metadata, labels, annotations: {} });
  await berth.expectFailure("PodSandboxStats", { podSandboxId: "f".repeat(64) }, Code.NotFound, /"f{64}" not found/u);
});
