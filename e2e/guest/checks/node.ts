import { readFile } from "node:fs/promises";
import path from "node:path";
import type { cri, Init } from "../../../cri-api/index.ts";
import { containerConfig } from "../../harness/configs.ts";
import { connectClient, type CriClient } from "../../harness/cri-client.ts";
import type { Workspace } from "../../harness/workspace.ts";

export const socketPath = "/run/berth/berth.sock";

/** For a machine that is emulated, on one that may be busy. */
export const patienceMs = 600_000;

export function connectToNode(): CriClient {
  return connectClient(socketPath, patienceMs);
}

export const image = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/** As kubelet names the slice of a burstable pod. */
export const sliceName = "kubepods-burstable-podchecks.slice";
const slicePath = `kubepods.slice/kubepods-burstable.slice/${sliceName}`;
export const cgroupParent = `/${slicePath}`;
export const sliceDirectory = path.join("/sys/fs/cgroup", slicePath);
export const mebibyte = 1024 * 1024;
/** Ends by SIGTERM, with code 0; needs a process at a time. */
export const waiting = "trap 'exit 0' TERM; while :; do sleep 1; done";

/** The node under test and a pod on it. */
export interface Node {
  readonly client: CriClient;
  readonly workspace: Workspace;
  readonly runtimeHandler: string;
  readonly pod: { readonly id: string; readonly config: Init<cri.PodSandboxConfig> };
}

/** Creates and starts a container in the node's pod. */
export async function startContainer(
  node: Node,
  name: string,
  { script = waiting, ...linux }: Init<cri.LinuxContainerConfig> & { readonly script?: string } = {},
): Promise<string> {
  const config = containerConfig(name, image, { command: ["sh", "-c", script], linux });
  const request = { podSandboxId: node.pod.id, config, sandboxConfig: node.pod.config };
  const { containerId } = await node.client.call("CreateContainer", request);
  await node.client.call("StartContainer", { containerId });
  return containerId;
}

/** Runs a line of shell in a container; its output is both streams, trimmed. */
export async function shell(
  node: Pick<Node, "client">,
  containerId: string,
  line: string,
): Promise<{ exitCode: number; text: string }> {
  const cmd = ["sh", "-c", line];
  const { exitCode, stdout, stderr } = await node.client.call("ExecSync", {
    containerId,
    cmd,
    timeout: BigInt(patienceMs / 1000),
  });
  return { exitCode, text: `${stdout.toString()}${stderr.toString()}`.trim() };
}

export async function statusOf({ client }: Pick<Node, "client">, containerId: string): Promise<cri.ContainerStatus> {
  const { status } = await client.call("ContainerStatus", { containerId });
  if (!status) throw new Error(`container ${containerId} has no status`);
  return status;
}

/** Kills what runs. */
export async function remove({ client }: Pick<Node, "client">, containerId: string): Promise<void> {
  await client.call("RemoveContainer", { containerId });
}

/** What the files of a container's cgroup say. */
export async function cgroupFiles(id: string, names: readonly string[]): Promise<Record<string, string>> {
  const directory = path.join(sliceDirectory, `berth-${id}.scope`);
  const texts = names.map(async (name) => [name, (await readFile(path.join(directory, name), "utf8")).trim()] as const);
  return Object.fromEntries(await Promise.all(texts));
}
