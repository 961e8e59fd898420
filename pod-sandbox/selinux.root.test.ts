import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, loadJsonCodecs } from "../cri-api/index.ts";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { syscalls } from "../native/index.ts";
import type { CreateProcess } from "../oci/index.ts";
import { createContainer } from "./container-create.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import { runPodSandbox } from "./sandbox-run.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";
import { testCall } from "./testing.ts";

// This kernel keeps labels but has no policy: mounts cannot be given contexts, so the pods share the host's IPC.
const selinux = { process: "system_u:system_r:container_t:s0", file: "system_u:object_r:container_file_t:s0" };
const codecs = loadJsonCodecs();
const namespaceOptions = { network: "NODE", pid: "CONTAINER", ipc: "NODE" };

let opened: TestHost;
let host: Host;
let created: CreateProcess[];
beforeEach(async () => {
  opened = await openTestHost();
  host = { ...opened, facts: { ...opened.facts, selinux } };
  created = [];
  const create = opened.runtime.create.bind(opened.runtime);
  Object.assign(opened.runtime, {
    create: (signal: AbortSignal, process: CreateProcess) => {
      created.push(process);
      return create(signal, process);
    },
  });
});
afterEach(() => opened[Symbol.asyncDispose]());

function podConfig(name: string, securityContext: object = {}) {
  const metadata = { name, namespace: "default", uid: `uid-${name}` };
  return codecs.PodSandboxConfig.fromJson({
    metadata,
    linux: { securityContext: { namespaceOptions, ...securityContext } },
  });
}

async function runPod(name: string, securityContext: object = {}): Promise<string> {
  const config = podConfig(name, securityContext);
  const { podSandboxId } = await runPodSandbox(testCall(), { config, runtimeHandler: "" }, host);
  return podSandboxId ?? "";
}

async function labelOf(path: string): Promise<string | undefined> {
  await using file = await open(path);
  return syscalls.getxattr(file.fd, "security.selinux")?.toString().replace(/\0$/, "");
}

describe("a pod on a host with a policy", () => {
  test("has a level of its own, or the one it asks for", async () => {
    for (const name of ["one", "two"]) await runPod(name);
    await runPod("three", { selinuxOptions: { level: "s0:c5" } });
    const levels = host.sandboxes.list().map(({ selinuxLevel }) => selinuxLevel);
    expect(levels).toEqual([expect.stringMatching(/^s0:c\d+,c\d+$/), expect.stringMatching(/^s0:c\d+,c\d+$/), "s0:c5"]);
    expect(levels[0]).not.toBe(levels[1]);
  });

  test("keeps its level over a restart, and its files are labelled with it", async () => {
    const id = await runPod("one");
    const level = host.sandboxes.get(id)?.selinuxLevel;
    await expect(labelOf(sandboxPathsOf(host.layout, id).resolvConf)).resolves.toBe(
      `system_u:object_r:container_file_t:${level}`,
    );
    await using again = await openTestHost(opened);
    expect(again.sandboxes.get(id)?.selinuxLevel).toBe(level);
  });

  test("is refused with a malformed level, before anything is made", async () => {
    await expect(runPod("bad", { selinuxOptions: { level: "s0,c4,c5" } })).rejects.toMatchObject({
      code: Code.InvalidArgument,
    });
    expect(host.sandboxes.all()).toEqual([]);
  });

  test("gives its containers its level, and them the volumes that are to be labelled", async () => {
    const podSandboxId = await runPod("one", { selinuxOptions: { level: "s0:c8,c9" } });
    const [volume, other] = [join(opened.directory, "volume"), join(opened.directory, "other")];
    for (const directory of [volume, other]) await mkdir(directory);
    await writeFile(join(volume, "file"), "");
    const mounts = [
      { hostPath: volume, containerPath: "/volume", selinuxRelabel: true },
      { hostPath: other, containerPath: "/other" },
    ];
    const linux = { securityContext: { namespaceOptions: { pid: "CONTAINER" } } };
    const config = codecs.ContainerConfig.fromJson({
      metadata: { name: "c" },
      image: { image: "busybox" },
      mounts,
      linux,
    });
    // The pod has the host's IPC, so only a type of its own keeps the container confined.
    const confined = { ...linux.securityContext, selinuxOptions: { type: "container_t" } };
    const named = codecs.ContainerConfig.fromJson({
      metadata: { name: "confined" },
      image: { image: "busybox" },
      mounts,
      linux: { securityContext: confined },
    });
    await createContainer(testCall(), { podSandboxId, config, sandboxConfig: null }, host);
    await expect(labelOf(volume)).resolves.toBeUndefined();
    await createContainer(testCall(), { podSandboxId, config: named, sandboxConfig: null }, host);

    const file = "system_u:object_r:container_file_t:s0:c8,c9";
    expect(created.map(({ spec }) => [spec.process.selinuxLabel, spec.linux.mountLabel])).toEqual([
      ["system_u:system_r:spc_t:s0:c8,c9", file],
      ["system_u:system_r:container_t:s0:c8,c9", file],
    ]);
    for (const path of [volume, join(volume, "file")]) await expect(labelOf(path)).resolves.toBe(file);
    await expect(labelOf(other)).resolves.toBeUndefined();
  });
});
