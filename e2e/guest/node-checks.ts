import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import type { cri, Init } from "../../cri-api/index.ts";
import { containerConfig, podConfig } from "../harness/configs.ts";
import { connectClient, type CriClient } from "../harness/cri-client.ts";
import { createReport, type Report } from "../harness/report.ts";
import { runCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import { createWorkspace, type Workspace } from "../harness/workspace.ts";

/** Inside the guest: what only a node with systemd, cgroup v2 and AppArmor can show, and critest does not ask. */
const { values: options } = parseArgs({ options: { runtime: { type: "string", default: "crun" } } });
const socketPath = "/run/berth/berth.sock";
const image = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const slice = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podchecks.slice";
const mebibyte = 1024 * 1024;

interface Node {
  readonly client: CriClient;
  readonly workspace: Workspace;
  readonly pod: { readonly id: string; readonly config: Init<cri.PodSandboxConfig> };
}

async function startContainer(node: Node, name: string, linux: Init<cri.LinuxContainerConfig> = {}): Promise<string> {
  const config = containerConfig(name, image, {
    command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
    linux,
  });
  const request = { podSandboxId: node.pod.id, config, sandboxConfig: node.pod.config };
  const { containerId } = await node.client.call("CreateContainer", request);
  await node.client.call("StartContainer", { containerId });
  return containerId;
}

async function shell(node: Node, containerId: string, line: string): Promise<{ exitCode: number; text: string }> {
  const cmd = ["sh", "-c", line];
  const { exitCode, stdout, stderr } = await node.client.call("ExecSync", { containerId, cmd, timeout: 60n });
  return { exitCode, text: `${stdout.toString()}${stderr.toString()}`.trim() };
}

const scopeOf = (id: string): string => path.join("/sys/fs/cgroup", slice, `berth-${id}.scope`);

async function limitsOf(id: string): Promise<Record<string, string>> {
  const names = ["memory.max", "memory.swap.max", "cpu.max"];
  const texts = names.map(async (name) => [name, (await readFile(path.join(scopeOf(id), name), "utf8")).trim()]);
  return Object.fromEntries(await Promise.all(texts)) as Record<string, string>;
}

async function checkCgroups(node: Node, report: Report): Promise<void> {
  const memoryLimitInBytes = BigInt(64 * mebibyte);
  const limits = { memoryLimitInBytes, cpuQuota: 50_000n, cpuPeriod: 100_000n };
  const containerId = await startContainer(node, "limited", { resources: limits });
  await report.check("limits lie in a scope of the pod's slice, swap within them", async () => {
    assert.deepEqual(await limitsOf(containerId), {
      "memory.max": String(64 * mebibyte),
      "memory.swap.max": "0",
      "cpu.max": "50000 100000",
    });
  });
  await report.check("an update changes them, and systemd knows", async () => {
    const linux = { memoryLimitInBytes: BigInt(128 * mebibyte), cpuQuota: 20_000n };
    await node.client.call("UpdateContainerResources", { containerId, linux });
    assert.deepEqual(await limitsOf(containerId), {
      "memory.max": String(128 * mebibyte),
      "memory.swap.max": "0",
      "cpu.max": "20000 100000",
    });
    const shown = await runCommand(["systemctl", "show", "-p", "MemoryMax", "--value", `berth-${containerId}.scope`]);
    assert.equal(shown, String(128 * mebibyte));
  });
  await report.check("a command that kubelet execs is in the container's cgroup", async () => {
    assert.equal((await shell(node, containerId, "cat /proc/self/cgroup")).text, "0::/");
  });
  await report.check("statistics count", async () => {
    const { stats } = await node.client.call("ContainerStats", { containerId });
    assert.ok((stats?.memory?.workingSetBytes?.value ?? 0n) > 0n);
    assert.ok((stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
  });
  await report.check("a pod's statistics are those of its slice", async () => {
    const { stats } = await node.client.call("PodSandboxStats", { podSandboxId: node.pod.id });
    assert.ok(stats?.linux);
    const { memory, process: processes, network } = stats.linux;
    const current = await readFile(path.join("/sys/fs/cgroup", slice, "memory.current"), "utf8");
    const usage = Number(memory?.usageBytes?.value);
    assert.ok(Math.abs(usage - Number(current)) < 16 * mebibyte, `${usage} of ${current}`);
    assert.ok(Number(processes?.processCount?.value) > 0);
    assert.equal(network?.defaultInterface?.name, "eth0");
  });
  await report.check("metrics come from cgroup v2's files", async () => {
    const { podMetrics } = await node.client.call("ListPodSandboxMetrics");
    const ofPod = podMetrics.find(({ podSandboxId }) => podSandboxId === node.pod.id);
    const ofContainer = ofPod?.containerMetrics.find((each) => each.containerId === containerId);
    for (const [metrics, names] of [
      [ofPod?.metrics, ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"]],
      [
        ofContainer?.metrics,
        [
          "container_cpu_user_seconds_total",
          "container_cpu_cfs_periods_total",
          "container_memory_cache",
          "container_memory_kernel_usage",
          "container_memory_max_usage_bytes",
          "container_oom_events_total",
          "container_threads",
        ],
      ],
    ] as const) {
      const found = new Set(metrics?.map(({ name }) => name));
      assert.deepEqual(
        names.filter((name) => !found.has(name)),
        [],
      );
    }
  });
  await report.check("a restart of the service leaves the container as it was", async () => {
    const before = await node.client.call("ContainerStatus", { containerId });
    await runCommand(["systemctl", "restart", "berth.service"]);
    assert.deepEqual((await node.client.call("ContainerStatus", { containerId })).status, before.status);
    assert.equal((await shell(node, containerId, "echo still here")).text, "still here");
  });
  await report.check("its end leaves no scope", async () => {
    await node.client.call("StopContainer", { containerId, timeout: 20n });
    await node.client.call("RemoveContainer", { containerId });
    const parent = path.dirname(scopeOf(containerId));
    await waitUntil("the scope's end", async () => {
      const names = await readdir(parent);
      return names.some((name) => name.includes(containerId)) ? undefined : true;
    });
  });
}

const profileOf = (node: Node, id: string): Promise<string> =>
  shell(node, id, "cat /proc/1/attr/current").then(({ text }) => text);
const sysAdmin = { capabilities: { addCapabilities: ["SYS_ADMIN"] }, seccomp: { profileType: "Unconfined" } } as const;
const mountSomething = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m";

async function checkApparmor(node: Node, report: Report): Promise<void> {
  await report.check("silence and RuntimeDefault mean the default profile", async () => {
    const silent = await startContainer(node, "silent");
    assert.equal(await profileOf(node, silent), "berth-default (enforce)");
    const asked = await startContainer(node, "asked", {
      securityContext: { apparmor: { profileType: "RuntimeDefault" } },
    });
    assert.equal(await profileOf(node, asked), "berth-default (enforce)");
    const exec = await shell(node, asked, "cat /proc/self/attr/current");
    assert.equal(exec.text, "berth-default (enforce)");
  });
  await report.check("the default profile forbids mounts and writes to the kernel's files", async () => {
    const id = await startContainer(node, "confined", { securityContext: sysAdmin });
    assert.match((await shell(node, id, mountSomething)).text, /denied/iu);
    assert.notEqual((await shell(node, id, "echo 1 > /proc/sys/vm/drop_caches")).exitCode, 0);
    assert.equal((await shell(node, id, "echo ok > /tmp/file && cat /tmp/file && kill -0 1 && ps")).exitCode, 0);
  });
  await report.check("Unconfined means none", async () => {
    const securityContext = { ...sysAdmin, apparmor: { profileType: "Unconfined" } } as const;
    const id = await startContainer(node, "unconfined", { securityContext });
    assert.equal(await profileOf(node, id), "unconfined");
    assert.deepEqual(await shell(node, id, mountSomething), { exitCode: 0, text: "" });
  });
  await report.check("a privileged container is not confined", async () => {
    const id = await startContainer(node, "privileged", { securityContext: { privileged: true } });
    assert.doesNotMatch(await profileOf(node, id), /enforce/u);
  });
  await report.check("a profile that is not loaded is named as the reason", async () => {
    const apparmor = { profileType: "Localhost", localhostRef: "no-such-profile" } as const;
    await assert.rejects(startContainer(node, "unloaded", { securityContext: { apparmor } }), /not loaded/u);
  });
}

async function main(): Promise<void> {
  const report = createReport();
  await using workspace = await createWorkspace();
  using client = connectClient(socketPath);
  await client.call("PullImage", { image: { image } }, { timeoutMs: 120_000 });
  const config = podConfig(workspace, "checks", {
    linux: { cgroupParent: `/${slice}`, securityContext: { privileged: true, namespaceOptions: { pid: "POD" } } },
  });
  const runtimeHandler = options.runtime;
  const { podSandboxId: id } = await client.call("RunPodSandbox", { config, runtimeHandler });
  const node = { client, workspace, pod: { id, config } };
  try {
    await checkCgroups(node, report);
    await checkApparmor(node, report);
  } finally {
    await client.call("StopPodSandbox", { podSandboxId: id });
    await client.call("RemovePodSandbox", { podSandboxId: id });
  }
  if (!report.conclude(`node checks with ${options.runtime}`)) process.exitCode = 1;
}

await main();
