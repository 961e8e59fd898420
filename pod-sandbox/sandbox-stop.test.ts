import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Code } from "../cri-api/index.ts";
import { removeContainer } from "./container-remove.ts";
import { startContainer } from "./container-start.ts";
import { updateContainerResources } from "./container-update-resources.ts";
import type { Container, ContainerIn } from "./container.ts";
import { containerPathsOf, sandboxPathsOf } from "./layout.ts";
import { removePodSandbox } from "./sandbox-remove.ts";
import { stopPodSandbox } from "./sandbox-stop.ts";
import { inCreated, testCall, testContainer, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const modes = { network: "POD", ipc: "NODE", pid: "CONTAINER" };
const pod = {
  ...testSandbox("pod", { linux: { securityContext: { namespaceOptions: modes } } }),
  state: "ready",
  ips: ["10.0.0.2"],
} as const;
const ownPids = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" } } } };
const podSandboxId = pod.id;

let host: TestHost;
beforeEach(async () => {
  host = await openTestHost();
  await mkdir(sandboxPathsOf(host.layout, pod.id).directory);
  await host.sandboxes.save(pod);
});
afterEach(() => host[Symbol.asyncDispose]());

async function addContainer(name: string, runtime = "crun"): Promise<ContainerIn<"created">> {
  const container = { ...inCreated(testContainer(name, pod, ownPids)), runtime };
  const { bundle } = containerPathsOf(host.layout, container.id);
  await mkdir(bundle);
  const process = { id: container.id, bundle, spec: { process: { args: ["sleep", "1000"] } } };
  const { init } = await host.runtime.create(new AbortController().signal, process as never);
  await host.containers.save({ ...container, init });
  return { ...container, init };
}

describe("StopPodSandbox", () => {
  it("kills what lives, lets go of the network and keeps the record", async () => {
    const { id } = await addContainer("web");
    await stopPodSandbox(testCall(), { podSandboxId }, host);
    expect(host.sandboxes.get(podSandboxId)).toMatchObject({ state: "stopped", ips: ["10.0.0.2"] });
    expect(host.containers.get(id)).toMatchObject({ state: "exited", exitCode: 137 });
    expect(host.network.journal).toEqual([`del ${podSandboxId}`]);
    await stopPodSandbox(testCall(), { podSandboxId }, host);
    expect(host.network.journal).toHaveLength(1);
  });

  it("does what is left when it is called again after a failure", async () => {
    host.network.fail.del = new Error("plugin is gone");
    await expect(stopPodSandbox(testCall(), { podSandboxId }, host)).rejects.toThrow("plugin is gone");
    expect(host.sandboxes.get(podSandboxId)?.state).toBe("not-ready");
    delete host.network.fail.del;
    await Promise.all([1, 2, 3].map(() => stopPodSandbox(testCall(), { podSandboxId }, host)));
    expect(host.sandboxes.get(podSandboxId)?.state).toBe("stopped");
    expect(host.network.journal).toHaveLength(2);
  });

  it("lets nothing start any more", async () => {
    const { id } = await addContainer("web");
    host.network.fail.del = new Error("plugin is gone");
    await expect(stopPodSandbox(testCall(), { podSandboxId }, host)).rejects.toThrow();
    await expect(startContainer(testCall(), { containerId: id }, host)).rejects.toMatchObject({
      code: Code.FailedPrecondition,
    });
  });
});

describe("RemovePodSandbox", () => {
  it("takes the containers along, and may be called by two at once", async () => {
    await addContainer("web");
    await addContainer("side");
    await Promise.all([1, 2].map(() => removePodSandbox(testCall(), { podSandboxId }, host)));
    expect([...host.sandboxes.all(), ...host.containers.all(), ...host.runtime.ids]).toEqual([]);
  });

  it("keeps what it could not remove for the next call", async () => {
    await addContainer("web");
    host.runtime.failNext("delete", new Error("cgroup is busy"));
    await expect(removePodSandbox(testCall(), { podSandboxId }, host)).rejects.toThrow("cgroup is busy");
    expect(host.sandboxes.get(podSandboxId)?.state).toBe("stopped");
    await removePodSandbox(testCall(), { podSandboxId }, host);
    expect([...host.sandboxes.all(), ...host.containers.all()]).toEqual([]);
  });

  it("says which handler it needs that the configuration has lost, until a reboot has cleared all", async () => {
    const { id } = await addContainer("web", "gone");
    await expect(removePodSandbox(testCall(), { podSandboxId }, host)).rejects.toMatchObject({
      code: Code.FailedPrecondition,
      message: 'runtime handler "gone" is not configured any more',
    });
    expect(host.containers.get(id)?.state).toBe("exited");
    await host.images.removeRootfs(id, containerPathsOf(host.layout, id).bundle, new AbortController().signal);
    await removePodSandbox(testCall(), { podSandboxId }, host);
    expect(host.sandboxes.all()).toEqual([]);
  });
});

describe("StartContainer", () => {
  it("ends a container that the runtime refuses, with the runtime's words", async () => {
    const { id } = await addContainer("web");
    host.runtime.failNext("start", new Error("exec format error"));
    await expect(startContainer(testCall(), { containerId: id }, host)).rejects.toThrow("exec format error");
    expect(host.containers.get(id)).toMatchObject({
      state: "exited",
      exitCode: 128,
      reason: "StartError",
      message: "exec format error",
      startedAtNs: 0n,
    });
  });

  it("tells why it failed, also when what is left cannot be killed", async () => {
    const { id } = await addContainer("web");
    host.runtime.failNext("start", new Error("exec format error"));
    Object.assign(host.runtime, { kill: () => Promise.reject(new Error("survives SIGKILL")) });
    await expect(startContainer(testCall(), { containerId: id }, host)).rejects.toThrow("exec format error");
    host.runtime.finish(id, {});
  });

  it("and RemoveContainer at once leave no container", async () => {
    const { id } = await addContainer("web");
    const started = startContainer(testCall(), { containerId: id }, host).catch(() => undefined);
    await removeContainer(testCall(), { containerId: id }, host);
    await started;
    expect([...host.containers.all(), ...host.runtime.ids]).toEqual([]);
  });
});

describe("UpdateContainerResources", () => {
  const nothing = {
    cpuPeriod: 0n,
    cpuQuota: 0n,
    cpuShares: 0n,
    memoryLimitInBytes: 0n,
    oomScoreAdj: 0n,
    cpusetCpus: "",
    cpusetMems: "",
    hugepageLimits: [],
    unified: {},
    memorySwapLimitInBytes: 0n,
  };
  const update = (containerId: string, linux: object): Promise<unknown> =>
    updateContainerResources(
      testCall(),
      { containerId, linux: { ...nothing, ...linux }, annotations: {}, windows: null },
      host,
    );

  it("reports what was set", async () => {
    const { id } = await addContainer("web");
    await update(id, { memoryLimitInBytes: 1n << 30n, cpuShares: 512n });
    await update(id, { cpuShares: 256n });
    expect(host.containers.get(id)?.resources).toMatchObject({ memoryLimitInBytes: 1n << 30n, cpuShares: 256n });
  });

  it.each([
    ["memory limit", { memoryLimitInBytes: -1n }],
    ["share", { cpuShares: -5n }],
    ["swap limit", { memorySwapLimitInBytes: -2n }],
    ["period", { cpuPeriod: -1n }],
  ])("refuses a negative %s and changes nothing", async (_, linux) => {
    const { id, resources } = await addContainer("web");
    await expect(update(id, linux)).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(host.containers.get(id)?.resources).toEqual(resources);
    expect(host.runtime.journal).not.toContain(`update ${id}`);
  });

  it("refuses a memory limit below what is in use, and takes one above it", async () => {
    const { id } = await addContainer("web");
    const cgroup = join(host.directory, "cgroup");
    await mkdir(cgroup);
    await writeFile(join(cgroup, "cpu.stat"), "usage_usec 1\n");
    await writeFile(join(cgroup, "memory.current"), "8192\n");
    Object.assign(host.runtime, { cgroupPaths: async () => ({ unified: cgroup, controllers: {} }) });
    await expect(update(id, { memoryLimitInBytes: 4096n })).rejects.toMatchObject({
      code: Code.InvalidArgument,
      message: "cannot decrease memory limit to 4096 bytes: current usage is 8192 bytes",
    });
    expect(host.runtime.journal).not.toContain(`update ${id}`);
    await update(id, { memoryLimitInBytes: 8192n });
    expect(host.containers.get(id)?.resources).toMatchObject({ memoryLimitInBytes: 8192n });
  });

  it("takes the limits back when it cannot write them down", async () => {
    const { id, resources } = await addContainer("web");
    const write = host.containers.update.bind(host.containers);
    const fails = (_id: string, change: (current: Container) => Container): Promise<Container | undefined> => {
      const current = host.containers.get(id);
      const isEnd = current !== undefined && change(current).wantedResources === undefined;
      return isEnd ? Promise.reject(new Error("disk full")) : write(id, change);
    };
    Object.assign(host.containers, { update: fails });
    await expect(update(id, { cpuShares: 512n })).rejects.toThrow("disk full");
    expect(host.containers.get(id)?.resources).toEqual(resources);
    expect(host.runtime.journal.filter((line) => line === `update ${id}`)).toHaveLength(2);
    Reflect.deleteProperty(host.containers, "update");
  });

  it("writes down what is wanted before anything is set, and tells of it after", async () => {
    const { id, resources } = await addContainer("web");
    let meanwhile: Container | undefined;
    Object.assign(host.runtime, { update: async () => void (meanwhile = host.containers.get(id)) });
    await update(id, { cpuShares: 512n });
    expect(meanwhile).toMatchObject({ resources, wantedResources: { cpuShares: 512n } });
    expect(host.containers.get(id)).toMatchObject({ resources: { cpuShares: 512n }, wantedResources: undefined });
  });

  it("changes nothing when it cannot write down what is wanted", async () => {
    const { id } = await addContainer("web");
    Object.assign(host.containers, { update: () => Promise.reject(new Error("disk full")) });
    await expect(update(id, { cpuShares: 512n })).rejects.toThrow("disk full");
    expect(host.runtime.journal).not.toContain(`update ${id}`);
    Reflect.deleteProperty(host.containers, "update");
  });
});
