import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import type { cri, Init } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import { containerConfig, podConfig } from "../harness/configs.ts";
import { removePods, type TestNode } from "../harness/test-node.ts";

/** One call in a world made for it. */
export interface Cut {
  /** The call that a kill cuts short, and that must succeed when it is made again. */
  call(): Promise<void>;
  /** It is not made to a daemon, but starts one. */
  readonly startsDaemon?: true;
}

/** What a scenario works with. */
export interface Stage {
  readonly node: TestNode;
  readonly runtimeHandler: string;
  /** Unlike every other's. */
  readonly name: string;
  readonly number: number;
  /** Makes a call that a kill cuts short where it reads so. */
  dieDuring(call: () => Promise<unknown>, where: string): Promise<void>;
}

type Scenario = (stage: Stage) => Promise<Cut>;

/** Every call that changes something, by its name; each is made in a pod of its own. */
export const scenarios = {
  RunPodSandbox: async (stage) => ({
    call: async () => void (await runPod(stage)),
  }),
  StopPodSandbox: async (stage) => {
    const { podSandboxId } = await runContainer(stage);
    return { call: async () => void (await stage.node.daemon.client.call("StopPodSandbox", { podSandboxId })) };
  },
  RemovePodSandbox: async (stage) => {
    const { podSandboxId } = await runContainer(stage);
    return { call: async () => void (await stage.node.daemon.client.call("RemovePodSandbox", { podSandboxId })) };
  },
  CreateContainer: async (stage) => {
    const pod = await runPod(stage);
    return { call: async () => void (await createContainer(stage, pod)) };
  },
  StartContainer: async (stage) => {
    const pod = await runPod(stage);
    const containerId = await createContainer(stage, pod);
    return { call: () => startUnlessRunning(stage, containerId) };
  },
  StopContainer: async (stage) => {
    const { containerId } = await runContainer(stage);
    return {
      call: async () => void (await stage.node.daemon.client.call("StopContainer", { containerId, timeout: 10n })),
    };
  },
  RemoveContainer: async (stage) => {
    const { containerId } = await runContainer(stage);
    return { call: async () => void (await stage.node.daemon.client.call("RemoveContainer", { containerId })) };
  },
  ExecSync: async (stage) => {
    const { containerId } = await runContainer(stage);
    return { call: () => exec(stage, containerId) };
  },
  UpdateContainerResources: async (stage) => {
    const { containerId } = await runContainer(stage);
    const linux = { memoryLimitInBytes: 64n << 20n, cpuShares: 512n };
    const request = { containerId, linux };
    return {
      call: async () => {
        await stage.node.daemon.client.call("UpdateContainerResources", request);
        const { status } = await stage.node.daemon.client.call("ContainerStatus", { containerId });
        if (status?.resources?.linux?.cpuShares !== 512n) throw new Error("the update is not told of");
      },
    };
  },
  ReopenContainerLog: async (stage) => {
    const { containerId } = await runContainer(stage);
    const { status } = await stage.node.daemon.client.call("ContainerStatus", { containerId });
    await rename(status?.logPath ?? "", `${status?.logPath}.1`);
    return {
      call: async () => void (await stage.node.daemon.client.call("ReopenContainerLog", { containerId })),
    };
  },
  PullImage: async ({ node }) => ({
    call: async () => void (await node.daemon.client.call("PullImage", { image: { image: node.image("layers") } })),
  }),
  RemoveImage: async ({ node }) => {
    const image = { image: node.image("layers") };
    await node.daemon.client.call("PullImage", { image });
    return { call: async () => void (await node.daemon.client.call("RemoveImage", { image })) };
  },
  /** With a container to take up, and a pod and a container that are half made. */
  Restart: async (stage) => {
    const { daemon } = stage.node;
    const pod = await runPod(stage);
    await runContainer(stage, pod);
    const half = { ...stage, name: `${stage.name}-half`, number: stage.number + 5_000 };
    const creates = (): Promise<unknown> => Promise.all([createContainer(stage, pod, "side"), runPod(half)]);
    await stage.dieDuring(creates, "mount state/pod-sandboxes/ID/shm");
    const call = async (): Promise<void> => {
      await daemon.stop("SIGKILL");
      await daemon.start();
    };
    return { call, startsDaemon: true };
  },
} as const satisfies Readonly<Record<string, Scenario>>;

export type ScenarioName = keyof typeof scenarios;

interface Pod {
  readonly podSandboxId: string;
  readonly config: Init<cri.PodSandboxConfig>;
}

async function runPod({ node, name, number, runtimeHandler }: Stage): Promise<Pod> {
  const config = podConfig(node.daemon.workspace, name, {
    portMappings: [{ protocol: "TCP", containerPort: 80, hostPort: 20_000 + (number % 10_000) }],
    linux: { securityContext: { namespaceOptions: { pid: "POD" } } },
  });
  await mkdir(config.logDirectory ?? "", { recursive: true });
  const { podSandboxId } = await node.daemon.client.call("RunPodSandbox", { config, runtimeHandler });
  return { podSandboxId, config };
}

async function createContainer(
  { node, name }: Stage,
  { podSandboxId, config: sandboxConfig }: Pod,
  containerName = "main",
): Promise<string> {
  const source = path.join(node.daemon.workspace.directory, "volumes", name);
  await mkdir(source, { recursive: true });
  await writeFile(`${source}/hello`, name);
  const config = containerConfig(containerName, node.image("busybox"), {
    mounts: [{ hostPath: source, containerPath: "/volume" }],
  });
  return (await node.daemon.client.call("CreateContainer", { podSandboxId, config, sandboxConfig })).containerId;
}

interface RunningContainer {
  readonly podSandboxId: string;
  readonly containerId: string;
}

async function runContainer(stage: Stage, given?: Pod): Promise<RunningContainer> {
  const pod = given ?? (await runPod(stage));
  const containerId = await createContainer(stage, pod);
  await stage.node.daemon.client.call("StartContainer", { containerId });
  await exec(stage, containerId); // it runs, and has its signal handlers
  return { podSandboxId: pod.podSandboxId, containerId };
}

/** A start that came through before the kill is not to be made again. */
async function startUnlessRunning(stage: Stage, containerId: string): Promise<void> {
  const { node } = stage;
  const { status } = await node.daemon.client.call("ContainerStatus", { containerId });
  if (status?.state === "CONTAINER_CREATED") await node.daemon.client.call("StartContainer", { containerId });
  const after = await node.daemon.client.call("ContainerStatus", { containerId });
  if (after.status?.state !== "CONTAINER_RUNNING") throw new Error(`the container is ${after.status?.state}`);
  await exec(stage, containerId);
}

async function exec({ node, name }: Stage, containerId: string): Promise<void> {
  const { stdout } = await node.daemon.client.call("ExecSync", { containerId, cmd: ["cat", "/volume/hello"] });
  if (stdout.toString() !== name) throw new Error(`the command said ${stdout.toString()}`);
}

/** Takes away what scenarios leave: every pod, and the image that one of them pulls. */
export async function clear(node: TestNode): Promise<void> {
  await removePods(node.daemon);
  await node.daemon.client.call("RemoveImage", { image: { image: node.image("layers") } });
}

/** Whether a call failed because the daemon went away under it. */
export function isCutShort(thrown: unknown): boolean {
  if (thrown instanceof CriError) return thrown.code === Code.Unavailable;
  return thrown instanceof Error && thrown.message.startsWith("the daemon ended at start");
}
