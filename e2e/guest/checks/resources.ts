import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Report } from "../../harness/report.ts";
import { runCommand } from "../../harness/run-command.ts";
import { waitUntil } from "../../harness/wait-until.ts";
import {
  cgroupFiles,
  mebibyte,
  type Node,
  patienceMs,
  remove,
  shell,
  sliceDirectory,
  sliceName,
  startContainer,
  statusOf,
} from "./node.ts";

const limitFiles = ["memory.max", "memory.swap.max", "cpu.max"];
const podTasks = 100;
/** Starts no process, so it does not end where none can be started. */
const still = "exec sleep 100000";
const swapBytes = 96 * mebibyte;

/** The slice of a pod as kubelet makes it: before the pod, with limits of its own. */
export async function makeSlice(): Promise<void> {
  const text = `[Slice]\nTasksMax=${podTasks}\nMemoryMax=512M\nCPUWeight=20\n`;
  await writeFile(path.join("/run/systemd/system", sliceName), text);
  await runCommand(["systemctl", "daemon-reload"]);
  await runCommand(["systemctl", "start", sliceName]);
}

/** Limits, updates and statistics by cgroup v2's files, in scopes that systemd knows. */
export async function checkResources(node: Node, report: Report): Promise<void> {
  const memoryLimitInBytes = BigInt(64 * mebibyte);
  const limits = { memoryLimitInBytes, cpuQuota: 50_000n, cpuPeriod: 100_000n };
  const containerId = await startContainer(node, "limited", { resources: limits });
  await report.check("limits lie in a scope of the pod's slice, swap within them", async () => {
    assert.deepEqual(await cgroupFiles(containerId, limitFiles), {
      "memory.max": String(64 * mebibyte),
      "memory.swap.max": "0",
      "cpu.max": "50000 100000",
    });
  });
  await report.check("an update changes them, and systemd knows", async () => {
    const linux = { memoryLimitInBytes: BigInt(128 * mebibyte), cpuQuota: 20_000n };
    await node.client.call("UpdateContainerResources", { containerId, linux });
    assert.deepEqual(await cgroupFiles(containerId, limitFiles), {
      "memory.max": String(128 * mebibyte),
      "memory.swap.max": "0",
      "cpu.max": "20000 100000",
    });
    const shown = await runCommand(["systemctl", "show", "-p", "MemoryMax", "--value", `berth-${containerId}.scope`]);
    assert.equal(shown, String(128 * mebibyte));
  });
  await report.check("a reload of systemd's units leaves them as they are", async () => {
    const before = await cgroupFiles(containerId, limitFiles);
    await runCommand(["systemctl", "daemon-reload"]);
    assert.deepEqual(await cgroupFiles(containerId, limitFiles), before);
  });
  await report.check("a command that kubelet execs is in the container's cgroup", async () => {
    assert.equal((await shell(node, containerId, "cat /proc/self/cgroup")).text, "0::/");
  });
  await checkStats(node, report, containerId);
  await report.check("its end leaves no scope", async () => {
    await remove(node, containerId);
    const isGone = async (): Promise<true | undefined> => {
      const names = await readdir(sliceDirectory);
      return names.some((name) => name.includes(containerId)) ? undefined : true;
    };
    await waitUntil("the scope's end", isGone, patienceMs);
  });
}

async function checkStats(node: Node, report: Report, containerId: string): Promise<void> {
  await report.check("statistics count", async () => {
    const { stats } = await node.client.call("ContainerStats", { containerId });
    assert.ok((stats?.memory?.workingSetBytes?.value ?? 0n) > 0n);
    assert.ok((stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
  });
  await report.check("a pod's statistics are those of its slice", async () => {
    const { stats } = await node.client.call("PodSandboxStats", { podSandboxId: node.pod.id });
    assert.ok(stats?.linux);
    const { memory, process: processes, network } = stats.linux;
    const current = await readFile(path.join(sliceDirectory, "memory.current"), "utf8");
    const usage = Number(memory?.usageBytes?.value);
    assert.ok(Math.abs(usage - Number(current)) < 16 * mebibyte, `${usage} of ${current}`);
    assert.ok(Number(processes?.processCount?.value) > 0);
    assert.equal(network?.defaultInterface?.name, "eth0");
  });
  await report.check("metrics come from cgroup v2's files", async () => {
    const { podMetrics } = await node.client.call("ListPodSandboxMetrics");
    const ofPod = podMetrics.find(({ podSandboxId }) => podSandboxId === node.pod.id);
    const ofContainer = ofPod?.containerMetrics.find((each) => each.containerId === containerId);
    const names = new Set([...(ofPod?.metrics ?? []), ...(ofContainer?.metrics ?? [])].map(({ name }) => name));
    const missing = [
      "container_cpu_usage_seconds_total",
      "container_memory_working_set_bytes",
      "container_cpu_user_seconds_total",
      "container_cpu_cfs_periods_total",
      "container_memory_cache",
      "container_memory_kernel_usage",
      "container_memory_max_usage_bytes",
      "container_oom_events_total",
      "container_threads",
    ].filter((name) => !names.has(name));
    assert.deepEqual(missing, []);
  });
}

/** What only cgroup v2 has, and what kubelet itself sets around a pod. */
export async function checkFurtherLimits(node: Node, report: Report): Promise<void> {
  await report.check("unified sets any file of cgroup v2, and pids.max holds", async () => {
    const unified = { "memory.high": String(40 * mebibyte), "pids.max": "12" };
    const containerId = await startContainer(node, "unified", { script: still, resources: { unified } });
    const found = await cgroupFiles(containerId, ["memory.high", "pids.max"]);
    assert.deepEqual(found, { "memory.high": String(40 * mebibyte), "pids.max": "12" });
    const forks = await shell(node, containerId, "for i in $(seq 30); do sleep 20 & done 2>&1; echo done");
    assert.match(forks.text, /can't fork|Resource temporarily unavailable/u);
    assert.equal((await statusOf(node, containerId)).state, "CONTAINER_RUNNING");
    await remove(node, containerId);
  });
  await report.check("what the pod's slice limits holds for its containers", async () => {
    const containerId = await startContainer(node, "crowd", { script: still });
    const forks = await shell(node, containerId, "for i in $(seq 150); do sleep 20 & done 2>&1; echo done");
    assert.match(forks.text, /can't fork|Resource temporarily unavailable/u);
    assert.ok(Number(await readFile(path.join(sliceDirectory, "pids.current"), "utf8")) <= podTasks);
    await remove(node, containerId);
  });
  await report.check("swap takes what a container may swap, and is counted", async () => {
    await using _swap = await addSwap();
    const [memoryLimitInBytes, memorySwapLimitInBytes] = [BigInt(32 * mebibyte), BigInt(96 * mebibyte)];
    const resources = { memoryLimitInBytes, memorySwapLimitInBytes };
    const containerId = await startContainer(node, "swapping", { resources });
    assert.equal((await cgroupFiles(containerId, ["memory.swap.max"]))["memory.swap.max"], String(64 * mebibyte));
    const filled = await shell(node, containerId, "head -c 60m /dev/zero > /dev/shm/filled");
    assert.deepEqual(filled, { exitCode: 0, text: "" });
    await waitUntil(
      "swapped pages",
      async () => {
        const { stats } = await node.client.call("ContainerStats", { containerId });
        return (stats?.swap?.swapUsageBytes?.value ?? 0n) > BigInt(8 * mebibyte) ? true : undefined;
      },
      patienceMs,
    );
    assert.equal((await shell(node, containerId, "rm /dev/shm/filled")).exitCode, 0);
    assert.equal((await statusOf(node, containerId)).state, "CONTAINER_RUNNING");
    await remove(node, containerId);
  });
}

async function addSwap(): Promise<AsyncDisposable> {
  const file = "/var/swapfile";
  await runCommand(["fallocate", "-l", String(swapBytes), file]);
  await runCommand(["chmod", "600", file]);
  await runCommand(["mkswap", "-q", file]);
  await runCommand(["swapon", file]);
  return {
    async [Symbol.asyncDispose]() {
      await runCommand(["swapoff", file]);
      await runCommand(["rm", file]);
    },
  };
}
