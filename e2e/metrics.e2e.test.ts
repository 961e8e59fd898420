import { expect, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { openStream, readToEnd } from "./harness/cri-stream.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();

type Row = Readonly<Record<string, string>> & { readonly name: string; readonly value: bigint };

/** Metrics with their labels by name, as kubelet joins them with the descriptors. */
async function readRows(metrics: readonly cri.Metric[]): Promise<readonly Row[]> {
  const { descriptors } = await berth.call("ListMetricDescriptors");
  return metrics.map(({ name, labelValues, value }) => {
    const descriptor = descriptors.find((each) => each.name === name);
    if (!descriptor || !value) throw new Error(`${name} has no descriptor or no value`);
    expect(labelValues, name).toHaveLength(descriptor.labelKeys.length);
    const labels = Object.fromEntries(descriptor.labelKeys.map((key, index) => [key, labelValues[index] ?? ""]));
    return { ...labels, name, value: value.value } as Row;
  });
}

async function metricsOf(podSandboxId: string): Promise<cri.PodSandboxMetrics> {
  const { podMetrics } = await berth.call("ListPodSandboxMetrics");
  const found = podMetrics.find((each) => each.podSandboxId === podSandboxId);
  if (!found) throw new Error(`no metrics of pod ${podSandboxId}`);
  return found;
}

/** Long enough at work that periods of its quota pass. */
const busyThenEaten =
  "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo eaten; exec sleep 1000";

function valueOf(rows: readonly Row[], name: string): bigint {
  const row = rows.find((each) => each.name === name);
  if (!row) throw new Error(`no ${name}`);
  return row.value;
}

test("a container's metrics tell its use and its limits, labelled as dashboards ask for them", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod, {
    command: ["sh", "-c", busyThenEaten],
    linux: { resources: { memoryLimitInBytes: 64n << 20n, cpuShares: 512n, cpuPeriod: 100_000n, cpuQuota: 50_000n } },
  });
  await berth.waitForLog(containerId, "eaten");
  const { containerMetrics } = await metricsOf(pod.id);
  expect(containerMetrics.map((each) => each.containerId)).toEqual([containerId]);
  const rows = await readRows(containerMetrics[0]?.metrics ?? []);
  for (const row of rows) {
    expect(row).toMatchObject({ id: containerId, namespace: "e2e", pod: pod.config.metadata?.name });
    expect(row).toMatchObject({ image: berth.image("busybox"), container: expect.stringMatching(/^container\d+$/u) });
  }
  expect(valueOf(rows, "container_memory_usage_bytes")).toBeGreaterThan(8n << 20n);
  expect(valueOf(rows, "container_memory_max_usage_bytes")).toBeGreaterThan(8n << 20n);
  expect(valueOf(rows, "container_spec_memory_limit_bytes")).toBe(64n << 20n);
  expect(valueOf(rows, "container_spec_cpu_quota")).toBe(50_000n);
  expect(valueOf(rows, "container_spec_cpu_shares")).toBe(512n);
  expect(valueOf(rows, "container_processes")).toBeGreaterThan(0n);
  expect(valueOf(rows, "container_cpu_cfs_periods_total")).toBeGreaterThan(0n);
  expect(valueOf(rows, "container_last_seen") - BigInt(Math.floor(Date.now() / 1000))).toBeLessThanOrEqual(0n);
  expect(valueOf(rows, "container_start_time_seconds")).toBeGreaterThan(1_700_000_000n);
  expect(rows.map(({ name }) => name).join()).not.toContain("network");
});

test("a pod's metrics tell its traffic; what has ended has none", async () => {
  const pod = await berth.runPod();
  const { containerId } = await berth.runToEnd(pod, ["true"]);
  const { metrics, containerMetrics } = await metricsOf(pod.id);
  expect(containerMetrics.map((each) => each.containerId)).not.toContain(containerId);
  const rows = await readRows(metrics);
  for (const row of rows) expect(row).toMatchObject({ id: pod.id, container: "POD", image: "" });
  const traffic = rows.filter(({ name }) => name.startsWith("container_network_"));
  expect(traffic).toHaveLength(8);
  for (const row of traffic) expect(row["interface"]).toBe("eth0");

  await berth.call("StopPodSandbox", { podSandboxId: pod.id });
  const { podMetrics } = await berth.call("ListPodSandboxMetrics");
  expect(podMetrics.map(({ podSandboxId }) => podSandboxId)).not.toContain(pod.id);
});

test("descriptors stay the same, and the stream has what the list has", async () => {
  const before = await berth.call("ListMetricDescriptors");
  const pod = await berth.runPod();
  await berth.startContainer(pod);
  expect(await berth.call("ListMetricDescriptors")).toEqual(before);
  using open = openStream(berth.daemon.socketPath, "StreamPodSandboxMetrics");
  const [message, ...more] = await readToEnd(open);
  expect(more).toEqual([]);
  expect(message?.podSandboxMetrics.map(({ podSandboxId }) => podSandboxId)).toEqual([pod.id]);
  const names = (metrics: readonly cri.PodSandboxMetrics[]) =>
    metrics.flatMap((each) => each.containerMetrics.flatMap((of) => of.metrics.map(({ name }) => name)));
  expect(names(message?.podSandboxMetrics ?? [])).toEqual(names([await metricsOf(pod.id)]));
});

test("UpdatePodSandboxResources is noted, and refused for an unknown pod", async () => {
  const pod = await berth.runPod({ config: { labels: { noted: "yes" } } });
  const resources: Init<cri.LinuxContainerResources> = { cpuShares: 204n, memoryLimitInBytes: 1n << 28n };
  await berth.call("UpdatePodSandboxResources", { podSandboxId: pod.id, resources });
  const { info } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id, verbose: true });
  const { config } = JSON.parse(info["info"] ?? "{}") as { config: { linux: { resources: object } } };
  expect(config.linux.resources).toMatchObject({ cpuShares: "204", memoryLimitInBytes: String(1n << 28n) });
  const unknown = { podSandboxId: "f".repeat(64), resources };
  await berth.expectFailure("UpdatePodSandboxResources", unknown, Code.NotFound, /not found/u);
});
