import { mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Code, loadJsonCodecs } from "../cri-api/index.ts";
import { createContainer } from "./container-create.ts";
import { removePodSandbox } from "./sandbox-remove.ts";
import { stopPodSandbox } from "./sandbox-stop.ts";
import { testCall, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const codecs = loadJsonCodecs();
const sandbox = {
  ...testSandbox("pod", {
    logDirectory: "/nowhere",
    linux: { securityContext: { namespaceOptions: { pid: "CONTAINER", network: "NODE", ipc: "NODE" } } },
  }),
  state: "ready",
  ips: [],
} as const;
const ownPids = { securityContext: { namespaceOptions: { pid: "CONTAINER" } } };

let host: TestHost;
beforeEach(async () => {
  host = await openTestHost();
  await host.sandboxes.save(sandbox);
});
afterEach(() => host[Symbol.asyncDispose]());

async function create(config: object = {}, call = testCall()): Promise<{ containerId: string }> {
  const request = {
    podSandboxId: sandbox.id,
    config: codecs.ContainerConfig.fromJson({
      metadata: { name: "web" },
      image: { image: "busybox" },
      linux: ownPids,
      ...config,
    }),
    sandboxConfig: null,
  };
  const { containerId } = await createContainer(call, request, host);
  return { containerId: containerId ?? "" };
}

/** What is left of containers anywhere: records in memory and on disk, bundles, root filesystems, processes. */
async function leftOver(): Promise<unknown[]> {
  const { layout, containers, images, runtime } = host;
  const files = await Promise.all([readdir(layout.containerRecords), readdir(layout.containers)]);
  return [...files.flat(), ...containers.all(), ...images.rootfsIds(), ...runtime.ids];
}

describe("createContainer", () => {
  it("makes a container that waits to be started", async () => {
    const { containerId } = await create();
    expect(host.containers.get(containerId)).toMatchObject({ state: "created", imageId: "sha256:image" });
    expect(host.runtime.ids).toEqual([containerId]);
  });

  it("gives a retry the container that is there", async () => {
    const [one, two] = await Promise.all([create(), create()]);
    expect(two).toEqual(one);
    expect(await create()).toEqual(one);
    expect(host.containers.all()).toHaveLength(1);
  });

  it("gives a retry the container whose image has lost its name since", async () => {
    const one = await create();
    Object.assign(host.images, { resolveImage: () => undefined });
    expect(await create()).toEqual(one);
    await expect(create({ metadata: { name: "other" } })).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("hears the runtime's words and leaves nothing behind", async () => {
    host.runtime.failNext("create", new Error("no such cgroup"));
    await expect(create()).rejects.toThrow("no such cgroup");
    expect(await leftOver()).toEqual([]);
  });

  it("leaves nothing behind where the root filesystem cannot be had", async () => {
    host.images.fail.createRootfs = new Error("overlay refused");
    await expect(create()).rejects.toThrow("overlay refused");
    expect(await leftOver()).toEqual([]);
  });

  it("leaves nothing behind where the record of a finished container cannot be written", async () => {
    const save = host.containers.save.bind(host.containers);
    Object.assign(host.containers, {
      save: (record: { state: string }) =>
        record.state === "created" ? Promise.reject(new Error("disk full")) : save(record as never),
    });
    await expect(create()).rejects.toThrow("disk full");
    expect(await leftOver()).toEqual([]);
  });

  it("counts on its own undo where the runtime's has failed", async () => {
    const cause = new Error("init died");
    host.runtime.failNext("create", new SuppressedError(new Error("state not removed"), cause));
    await expect(create()).rejects.toBe(cause);
    expect(await leftOver()).toEqual([]);
  });

  it("keeps the record of an undo that failed, unseen, until its pod is removed", async () => {
    host.runtime.failNext("create", new Error("no such cgroup"));
    host.images.fail.removeRootfs = new Error("device busy");
    await expect(create()).rejects.toMatchObject({ suppressed: { message: "no such cgroup" } });
    expect(host.containers.list()).toEqual([]);
    expect(host.containers.all()).toMatchObject([{ state: "creating" }]);
    delete host.images.fail.removeRootfs;
    await removePodSandbox(testCall(), { podSandboxId: sandbox.id }, host);
    expect(await leftOver()).toEqual([]);
    expect(host.sandboxes.all()).toEqual([]);
  });

  it("may be tried again after an undo that failed, and finishes that", async () => {
    host.runtime.failNext("create", new Error("no such cgroup"));
    host.images.fail.removeRootfs = new Error("device busy");
    await expect(create()).rejects.toThrow();
    delete host.images.fail.removeRootfs;
    const { containerId } = await create();
    expect(host.containers.all().map(({ id }) => id)).toEqual([containerId]);
    expect(await readdir(host.layout.containers)).toEqual([containerId]);
    expect(host.images.rootfsIds()).toEqual([containerId]);
  });

  it("may be tried again though what an undo has left cannot be cleared yet", async () => {
    host.runtime.failNext("create", new Error("no such cgroup"));
    host.images.fail.removeRootfs = new Error("device busy");
    await expect(create()).rejects.toThrow();
    const { containerId } = await create();
    expect(host.containers.list().map(({ id }) => id)).toEqual([containerId]);
    expect(host.containers.all()).toHaveLength(2);
    expect(await create()).toEqual({ containerId });
    delete host.images.fail.removeRootfs;
    await removePodSandbox(testCall(), { podSandboxId: sandbox.id }, host);
    expect(await leftOver()).toEqual([]);
  });

  it("leaves no process behind an undo that failed once its pod is stopped", async () => {
    const save = host.containers.save.bind(host.containers);
    Object.assign(host.containers, {
      save: (record: { state: string }) =>
        record.state === "created" ? Promise.reject(new Error("disk full")) : save(record as never),
    });
    host.runtime.failNext("delete", new Error("no answer"));
    await expect(create()).rejects.toThrow();
    expect(host.runtime.ids).toHaveLength(1);
    await stopPodSandbox(testCall(), { podSandboxId: sandbox.id }, host);
    expect(host.runtime.ids).toEqual([]);
    expect(host.sandboxes.get(sandbox.id)?.state).toBe("stopped");
    await removePodSandbox(testCall(), { podSandboxId: sandbox.id }, host);
    expect(await leftOver()).toEqual([]);
  });

  it("is given up when the pod is stopped underneath it, and undone before the pod is", async () => {
    const runtime = Object.assign(host.runtime, {
      create: (signal: AbortSignal) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          reached.resolve();
        }),
    });
    const reached = Promise.withResolvers<void>();
    const created = create();
    created.catch(() => undefined);
    await reached.promise;
    await stopPodSandbox(testCall(), { podSandboxId: sandbox.id }, host);
    await expect(created).rejects.toMatchObject({ code: Code.Aborted });
    expect(host.sandboxes.get(sandbox.id)?.state).toBe("stopped");
    expect(host.containers.all()).toEqual([]);
    expect(runtime.ids).toEqual([]);
    await expect(create()).rejects.toMatchObject({ code: Code.FailedPrecondition });
  });

  it.each(["../x.log", "a/../../x.log", "/etc/passwd", ".", "a/", "a/."])(
    "refuses the log path %j",
    async (logPath) => {
      await expect(create({ logPath })).rejects.toMatchObject({ code: Code.InvalidArgument });
      expect(await leftOver()).toEqual([]);
    },
  );

  it("follows no link that lies in the log file's place", async () => {
    const logs = join(host.directory, "logs");
    await mkdir(logs);
    await writeFile(join(logs, "target"), "kept");
    await symlink("target", join(logs, "0.log"));
    const logging = testSandbox("pod", { ...codecs.PodSandboxConfig.toJson(sandbox.config), logDirectory: logs });
    await host.sandboxes.save({ ...sandbox, config: logging.config });
    await create({ logPath: "0.log" });
    expect(await readdir(logs)).toEqual(["target"]);
  });

  it("refuses a device directory that is not below /dev", async () => {
    const devices = [{ hostPath: "/proc", containerPath: "/x", permissions: "r" }];
    await expect(create({ devices })).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await leftOver()).toEqual([]);
  });

  it("refuses a working directory that is a file of the image", async () => {
    const { createRootfs } = host.images;
    Object.assign(host.images, {
      async createRootfs(id: string, image: string, target: string) {
        await createRootfs(id, image, target);
        await writeFile(join(target, "file"), "");
      },
    });
    await expect(create({ workingDir: "/file/below" })).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await leftOver()).toEqual([]);
  });

  it("refuses a config that the next daemon could not read", async () => {
    const annotations = { big: "x".repeat(17 * 1024 * 1024) };
    await expect(create({ annotations })).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await leftOver()).toEqual([]);
  });
});
