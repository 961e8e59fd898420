import assert from "node:assert/strict";
import { open, readdir, readFile, rename } from "node:fs/promises";
import path from "node:path";
import type { cri, Init } from "../../../cri-api/index.ts";
import { containerConfig } from "../../harness/configs.ts";
import type { CriClient } from "../../harness/cri-client.ts";
import type { Report } from "../../harness/report.ts";
import { waitUntil } from "../../harness/wait-until.ts";
import { image, patienceMs, waiting } from "./node.ts";

/** Where the image service has layers, each in a directory of its own from the start of its download, and images. */
export const layersDirectory = "/var/lib/berth/layers";
const imagesDirectory = "/var/lib/berth/images";

/** What a client was told before the node went down, and must find true when it is up again. */
export interface Told {
  readonly pods: readonly string[];
  readonly running: readonly string[];
  /** Ids of containers that had ended, with what was told of their end. */
  readonly ended: Readonly<Record<string, { readonly exitCode: number; readonly finishedAt: string }>>;
  readonly images: readonly string[];
  readonly bootId: string;
}

export async function readBootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}

/** Survives a power cut from the moment it resolves; before that, the file is as it was. */
export async function writeDurably(file: string, text: string): Promise<void> {
  const aside = `${file}.new`;
  {
    await using handle = await open(aside, "w");
    await handle.writeFile(text);
    await handle.sync();
  }
  await rename(aside, file);
  await using directory = await open(path.dirname(file));
  await directory.sync();
}

export function podOf(name: string): Init<cri.PodSandboxConfig> {
  return {
    metadata: { name, uid: `uid-${name}`, namespace: "reboot", attempt: 0 },
    hostname: name,
    logDirectory: `/var/log/pods/reboot_${name}`,
    linux: {
      cgroupParent: "/kubepods.slice/kubepods-besteffort.slice",
      securityContext: { namespaceOptions: { pid: "CONTAINER" } },
    },
  };
}

export async function runPod(client: CriClient, name: string): Promise<{ readonly id: string; readonly name: string }> {
  const { podSandboxId: id } = await client.call("RunPodSandbox", { config: podOf(name) });
  return { id, name };
}

export async function runContainer(
  client: CriClient,
  pod: { readonly id: string; readonly name: string },
  { name = "main", script = waiting, from = image } = {},
): Promise<string> {
  const config = containerConfig(name, from, { command: ["sh", "-c", script] });
  const request = { podSandboxId: pod.id, config, sandboxConfig: podOf(pod.name) };
  const { containerId } = await client.call("CreateContainer", request);
  await client.call("StartContainer", { containerId });
  return containerId;
}

/** After the node has been down: every record that a client knew of is there and says what is so. */
export async function checkTold(client: CriClient, told: Told, report: Report): Promise<void> {
  await report.check("the node has been down", async () => {
    assert.notEqual(await readBootId(), told.bootId);
  });
  await report.check("its pods are there, and none is ready", async () => {
    const { items } = await client.call("ListPodSandbox");
    const ids = new Set(items.map(({ id }) => id));
    assert.deepEqual(
      told.pods.filter((id) => !ids.has(id)),
      [],
    );
    assert.deepEqual(
      items.filter(({ state }) => state !== "SANDBOX_NOTREADY"),
      [],
    );
  });
  await report.check("its containers are there, and have ended", async () => {
    const { containers } = await client.call("ListContainers");
    const states = new Map(containers.map(({ id, state }) => [id, state]));
    const known = [...told.running, ...Object.keys(told.ended)];
    assert.deepEqual(
      known.filter((id) => states.get(id) !== "CONTAINER_EXITED"),
      [],
    );
  });
  await report.check("an end that was told before is told as it was", async () => {
    for (const [containerId, end] of Object.entries(told.ended)) {
      const { status } = await client.call("ContainerStatus", { containerId });
      assert.deepEqual([status?.exitCode, String(status?.finishedAt)], [end.exitCode, end.finishedAt]);
    }
  });
  await report.check("its images are there, and nothing was pulled again", async () => {
    const { images } = await client.call("ListImages");
    const ids = new Set(images.map(({ id }) => id));
    assert.deepEqual(
      told.images.filter((id) => !ids.has(id)),
      [],
    );
  });
}

/** All pods go, as kubelet would have them go, and with them everything that was theirs. */
export async function checkRemoval(client: CriClient, report: Report): Promise<void> {
  await report.check("every pod can be stopped and removed, and nothing of them is left", async () => {
    for (const { id } of (await client.call("ListPodSandbox")).items) {
      await client.call("StopPodSandbox", { podSandboxId: id });
      await client.call("RemovePodSandbox", { podSandboxId: id });
    }
    let left: readonly string[] = [];
    const isNothingLeft = async (): Promise<true | undefined> =>
      (left = await findLeft()).length === 0 ? true : undefined;
    await waitUntil("nothing to be left", isNothingLeft, patienceMs).catch(() => undefined);
    assert.deepEqual(left, []);
  });
}

const directories: readonly { readonly path: string; readonly isOurs?: (name: string) => boolean }[] = [
  { path: "/var/lib/berth/pod-sandboxes" },
  { path: "/var/lib/berth/containers" },
  { path: "/run/berth/pod-sandboxes" },
  { path: "/run/berth/containers" },
  { path: "/var/lib/cni/results" },
  { path: "/var/lib/cni/networks/berth", isOurs: (name) => /^\d+\./u.test(name) },
  { path: "/sys/class/net", isOurs: (name) => name.startsWith("veth") },
];

/** What pods leave on a node's disk and in its kernel: records, layers of containers, leases, links, mounts, cgroups. */
async function findLeft(): Promise<readonly string[]> {
  const files = await Promise.all(
    directories.map(async ({ path: directory, isOurs = () => true }) => {
      const names = await readdir(directory).catch(() => []);
      return names.filter(isOurs).map((name) => path.join(directory, name));
    }),
  );
  const mounts = (await readFile("/proc/self/mountinfo", "utf8")).match(/\S*berth\S*[0-9a-f]{64}\S*/gu) ?? [];
  const cgroups = await readdir("/sys/fs/cgroup", { recursive: true });
  return [...files.flat(), ...mounts, ...cgroups.filter((name) => /berth-[0-9a-f]{64}/u.test(name))];
}

/** No layer is there twice, half, or for nothing: with its images gone, the store is empty. */
export async function checkStore(client: CriClient, report: Report): Promise<void> {
  await report.check("without its images the store is empty", async () => {
    for (const { id } of (await client.call("ListImages")).images)
      await client.call("RemoveImage", { image: { image: id } });
    const isEmpty = async (): Promise<true | undefined> => {
      const names = await Promise.all([layersDirectory, imagesDirectory].map((directory) => readdir(directory)));
      return names.flat().length === 0 ? true : undefined;
    };
    await waitUntil("the layers' end", isEmpty, patienceMs);
  });
}
