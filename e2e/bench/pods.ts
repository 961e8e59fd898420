import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { cri, Init } from "../../cri-api/index.ts";
import { containerConfig, podConfig } from "../harness/configs.ts";
import type { CriClient } from "../harness/cri-client.ts";
import { waitUntil } from "../harness/wait-until.ts";
import type { Workspace } from "../harness/workspace.ts";
import type { Contestant } from "./contestant.ts";
import { sleeper } from "./images.ts";

export interface PodSettings {
  readonly workspace: Workspace;
  /** Ask for the runtime's own seccomp profile, as kubelet does with SeccompDefault. */
  readonly withSeccomp: boolean;
}

/** A pod and its one container, ready to be asked for. */
interface PodRequest {
  readonly pod: Init<cri.PodSandboxConfig>;
  readonly container: Init<cri.ContainerConfig>;
  readonly logFile: string;
}

/** Writes the configs that kubelet would send, with process namespaces per container, and makes the log directory. */
export async function preparePod(settings: PodSettings, contestant: Contestant, name: string): Promise<PodRequest> {
  const seccomp = settings.withSeccomp ? { profileType: "RuntimeDefault" as const } : undefined;
  const securityContext = {
    namespaceOptions: { pid: "CONTAINER" as const },
    ...(seccomp === undefined ? {} : { seccomp }),
  };
  const logDirectory = path.join(settings.workspace.logs, contestant.name, name);
  const pod = podConfig(settings.workspace, name, { logDirectory, linux: { securityContext } });
  const container = containerConfig("sleeper", contestant.image, {
    command: [...sleeper],
    linux: { securityContext },
  });
  await mkdir(logDirectory, { recursive: true });
  return { pod, container, logFile: path.join(logDirectory, "sleeper.log") };
}

/** Waits until the container's first process said that it can be told to stop. */
export async function waitForSleeper(logFile: string): Promise<void> {
  await waitUntil("the container to say that it is ready", async () =>
    (await readFile(logFile, "utf8").catch(() => "")).includes("ready") ? true : undefined,
  );
}

/** Runs a pod with its container and returns once the container is at work. */
export async function runPod(settings: PodSettings, contestant: Contestant, name: string): Promise<void> {
  const { pod, container, logFile } = await preparePod(settings, contestant, name);
  const { client } = contestant;
  const { podSandboxId } = await client.call("RunPodSandbox", { config: pod });
  const request = { podSandboxId, config: container, sandboxConfig: pod };
  const { containerId } = await client.call("CreateContainer", request);
  await client.call("StartContainer", { containerId });
  await waitForSleeper(logFile);
}

/** Stops and removes every pod that this client was told of; several at a time, as a drained node would. */
export async function removePods(client: CriClient): Promise<void> {
  const { items } = await client.call("ListPodSandbox");
  const mine = items.filter(({ id }) => client.seenIds.has(id));
  await inParallel(mine, async ({ id: podSandboxId }) => {
    await client.call("StopPodSandbox", { podSandboxId }, { timeoutMs: 120_000 });
    await client.call("RemovePodSandbox", { podSandboxId }, { timeoutMs: 120_000 });
  });
}

/** Works through a list, four at a time; the first failure ends it. */
export async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const lane = async (): Promise<void> => {
    for (const item of rest) await work(item);
  };
  await Promise.all([lane(), lane(), lane(), lane()]);
}
