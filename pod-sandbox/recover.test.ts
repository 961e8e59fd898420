import { mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { processIdentity, spawn } from "../native/index.ts";
import type { Child, ProcessIdentity } from "../native/index.ts";
import type { ContainerIn } from "./container.ts";
import { containerPathsOf, sandboxPathsOf } from "./layout.ts";
import { recover } from "./recover.ts";
import type { SandboxIn } from "./sandbox.ts";
import { inCreated, testContainer, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const ofHost = { network: "NODE", ipc: "NODE", pid: "CONTAINER" };
const hostPod = testSandbox("pod", { linux: { securityContext: { namespaceOptions: ofHost } } });
const ownPids = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" } } } };

let host: TestHost;
const children: Child[] = [];
beforeEach(async () => {
  host = await openTestHost();
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill(9);
  await host[Symbol.asyncDispose]();
});

/** A process that is there until the test is over. */
async function startProcess(): Promise<ProcessIdentity> {
  const child = await spawn({ argv: ["/bin/sleep", "1000"], env: {}, stdio: ["null", "null", "null"] });
  children.push(child);
  const identity = await processIdentity(child.pid);
  if (!identity) throw new Error("the process is not there");
  return identity;
}

/** A container as the daemon before left it: its record, its bundle, and what the runtime knows of it. */
async function leaveContainer(init?: ProcessIdentity): Promise<ContainerIn<"created">> {
  const created = inCreated(testContainer("web", hostPod, ownPids));
  const { bundle } = containerPathsOf(host.layout, created.id);
  await mkdir(bundle);
  const process = { id: created.id, bundle, spec: { process: { args: ["sleep", "1000"] } } };
  const made = await host.runtime.create(new AbortController().signal, process as never);
  return { ...created, init: init ?? made.init };
}

async function leavePod(): Promise<SandboxIn<"ready">> {
  const pod = { ...hostPod, state: "ready", ips: [] } as const;
  await mkdir(sandboxPathsOf(host.layout, pod.id).directory, { recursive: true });
  await host.sandboxes.save(pod);
  return pod;
}

describe("recover", () => {
  it("leaves a running container running and sees its end", async () => {
    const container = { ...(await leaveContainer(await startProcess())), state: "running", startedAtNs: 7n } as const;
    await host.containers.save(container);
    await recover(host);
    expect(host.containers.get(container.id)).toEqual(container);
    host.runtime.finish(container.id, { exitCode: 4 });
    await host.exits.ended(container.id);
    expect(host.containers.get(container.id)).toMatchObject({ state: "exited", exitCode: 4, startedAtNs: 7n });
  });

  it("knows an exit that it missed before it answers", async () => {
    const container = { ...(await leaveContainer()), state: "running", startedAtNs: 7n } as const;
    await host.containers.save(container);
    host.runtime.finish(container.id, { exitCode: 5, finishedAtNs: 9n });
    await recover(host);
    expect(host.containers.get(container.id)).toMatchObject({ state: "exited", exitCode: 5, finishedAtNs: 9n });
  });

  it("takes a container for started that was, though the daemon died before it wrote so", async () => {
    const container = await leaveContainer(await startProcess());
    await host.containers.save(container);
    await host.runtime.start(new AbortController().signal, container.id);
    await recover(host);
    expect(host.containers.get(container.id)?.state).toBe("running");
  });

  describe("after an update that the daemon died in", () => {
    async function leaveUpdate(): Promise<ContainerIn<"running">> {
      const created = await leaveContainer(await startProcess());
      const wantedResources = { ...created.resources, memoryLimitInBytes: 1n << 26n };
      const container = { ...created, state: "running", startedAtNs: 7n, wantedResources } as const;
      await host.containers.save(container);
      return container;
    }
    const updatesOf = (id: string): readonly string[] => host.runtime.journal.filter((line) => line === `update ${id}`);

    it("goes on with it before it answers", async () => {
      const { id, wantedResources } = await leaveUpdate();
      await recover(host);
      expect(updatesOf(id)).toHaveLength(1);
      expect(host.containers.get(id)).toMatchObject({ resources: wantedResources, wantedResources: undefined });
    });

    it("puts the limits back where they can no longer be had", async () => {
      const { id, resources } = await leaveUpdate();
      host.runtime.failNext("update", new Error("more is in use"));
      await recover(host);
      expect(updatesOf(id)).toHaveLength(2);
      expect(host.containers.get(id)).toMatchObject({ resources, wantedResources: undefined });
    });

    it("keeps it for the next start while nothing can be set", async () => {
      const { id, resources, wantedResources } = await leaveUpdate();
      Object.assign(host.runtime, { update: () => Promise.reject(new Error("no runtime")) });
      await recover(host);
      expect(host.containers.get(id)).toMatchObject({ resources, wantedResources });
    });
  });

  it("lets no container end before it started", async () => {
    const container = await leaveContainer();
    await host.containers.save(container);
    await host.runtime.start(new AbortController().signal, container.id);
    host.runtime.finish(container.id, { exitCode: 0, finishedAtNs: 1_000n });
    await recover(host);
    expect(host.containers.get(container.id)).toMatchObject({
      state: "exited",
      startedAtNs: 1_000n,
      finishedAtNs: 1_000n,
    });
  });

  it("lets no container end before it started whose exit was written after the clock was set back", async () => {
    const container = { ...(await leaveContainer()), state: "running", startedAtNs: 2_000n } as const;
    await host.containers.save(container);
    host.runtime.finish(container.id, { exitCode: 0, finishedAtNs: 1_000n });
    await recover(host);
    expect(host.containers.get(container.id)).toMatchObject({ startedAtNs: 2_000n, finishedAtNs: 2_000n });
  });

  it.each(["created", "running"] as const)(
    "ends a %s container that a reboot took, whoever has its pid",
    async (state) => {
      const somebody = await startProcess();
      const created = { ...inCreated(testContainer("web", hostPod)), init: somebody };
      await host.containers.save(state === "created" ? created : { ...created, state, startedAtNs: 7n });
      await recover(host);
      expect(host.containers.get(created.id)).toMatchObject({
        state: "exited",
        exitCode: 255,
        reason: "Error",
        startedAtNs: state === "created" ? 0n : 7n,
      });
    },
  );

  it("keeps a pod ready that has all it needs", async () => {
    const pod = await leavePod();
    await recover(host);
    expect(host.sandboxes.get(pod.id)).toEqual(pod);
  });

  it.each([
    ["directory is gone", {}, false],
    ["namespaces are files without a mount", { network: "POD" }, true],
  ])("does not call a pod ready whose %s", async (_, options, hasDirectory) => {
    const config = { linux: { securityContext: { namespaceOptions: { ...ofHost, ...options } } } };
    const pod = { ...testSandbox("lost", config), state: "ready", ips: ["10.0.0.2"] } as const;
    const paths = sandboxPathsOf(host.layout, pod.id);
    if (hasDirectory) {
      await mkdir(paths.namespaces, { recursive: true });
      for (const path of [paths.netns, paths.utsns]) await writeFile(path, "");
    }
    await host.sandboxes.save(pod);
    await recover(host);
    expect(host.sandboxes.get(pod.id)).toMatchObject({ state: "not-ready", ips: ["10.0.0.2"] });
  });

  it("undoes what was in creation", async () => {
    const pod = await leavePod();
    const half = testContainer("half", pod);
    await host.containers.save(half);
    const { bundle, rootfs } = containerPathsOf(host.layout, half.id);
    await mkdir(bundle);
    await host.images.createRootfs(half.id, "sha256:image", rootfs);
    await recover(host);
    expect(host.containers.all()).toEqual([]);
    expect(host.images.rootfsIds()).toEqual([]);
    expect(await readdir(host.layout.containers)).toEqual([]);
  });

  it("takes down containers of which no record tells, and nothing else", async () => {
    const orphan = "a".repeat(64);
    const { bundle, rootfs } = containerPathsOf(host.layout, orphan);
    await mkdir(bundle);
    await host.images.createRootfs(orphan, "sha256:image", rootfs);
    await host.images.createRootfs("b".repeat(64), "sha256:image", join(host.directory, "gone"));
    await mkdir(join(host.layout.containers, "lost+found"));
    const known = { ...(await leaveContainer(await startProcess())), state: "running", startedAtNs: 7n } as const;
    await host.containers.save(known);
    await recover(host);
    expect((await readdir(host.layout.containers)).sort()).toEqual([known.id, "lost+found"].sort());
    expect(host.images.rootfsIds()).toEqual([]);
    expect(host.runtime.journal).toContain(`delete ${orphan}`);
    expect(host.runtime.journal).not.toContain(`delete ${known.id}`);
  });

  it("takes the network of a pod sandbox without a record down before its namespace", async () => {
    const orphan = "a".repeat(64);
    const paths = sandboxPathsOf(host.layout, orphan);
    await mkdir(paths.namespaces, { recursive: true });
    await writeFile(paths.netns, "");
    host.network.fail.del = new Error("plugin is gone");
    await recover(host);
    expect(await readdir(paths.namespaces)).toEqual(["net"]);
    delete host.network.fail.del;
    await recover(host);
    const once = [`end ${orphan}`, `del ${orphan}`];
    expect(host.network.journal).toEqual([...once, ...once]);
    expect(await readdir(host.layout.sandboxes)).toEqual([]);
  });

  it("ends the plugins of pods that were half made or half taken down, and of no others, before it undoes them", async () => {
    const config = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" } } } };
    const [half, going, gone] = ["half", "going", "gone"].map((name) => testSandbox(name, config));
    if (!half || !going || !gone) throw new Error("there are three");
    await leavePod();
    await host.sandboxes.save(half);
    await host.sandboxes.save({ ...going, state: "not-ready", ips: [] });
    await host.sandboxes.save({ ...gone, state: "stopped", ips: [] });
    host.network.fail.endStrayPlugins = new Error("it waits for a device"); // which keeps nobody else
    await recover(host);
    expect(host.network.journal).toEqual([`end ${half.id} ${going.id}`, `del ${half.id}`]);
    expect(host.sandboxes.get(half.id)).toBeUndefined();
  });

  it("brings up the others when one cannot be", async () => {
    const pod = await leavePod();
    await host.containers.save(testContainer("half", pod));
    host.images.fail.removeRootfs = new Error("device busy");
    await recover(host);
    expect(host.containers.all()).toMatchObject([{ state: "creating" }]);
    expect(host.sandboxes.get(pod.id)?.state).toBe("ready");
  });
});
