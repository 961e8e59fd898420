import { mkdir } from "node:fs/promises";
import type { cri, Init } from "../../cri-api/index.ts";
import { containerConfig, podConfig } from "../harness/configs.ts";
import type { Random } from "../harness/random.ts";
import type { ContainerFacts, Slot, World } from "./world.ts";

type Action = (world: World, random: Random) => Promise<unknown>;

/** What the clients do, and how often beside the others. */
const actions: readonly (readonly [weight: number, action: Action])[] = [
  [14, runPod],
  [3, stopPod],
  [4, removePod],
  [16, createContainer],
  [14, startContainer],
  [8, stopContainer],
  [8, removeContainer],
  [8, execSync],
  [3, execDuringStop],
  [4, updateResources],
  [3, reopenLog],
  [4, pullImage],
  [3, removeImage],
  [4, ask],
];

const ladder: readonly Action[] = actions.flatMap(([weight, action]) => Array.from({ length: weight }, () => action));

export async function actOnce(world: World, random: Random): Promise<void> {
  const action = ladder[random.below(ladder.length)];
  await action?.(world, random);
}

function podConfigOf(world: World, slot: Slot, random: Random): Init<cri.PodSandboxConfig> {
  const pid = slot.hostPort % 2 === 0 ? "POD" : "CONTAINER";
  const portMappings =
    slot.hostPort % 3 === 0 ? [{ protocol: "TCP", containerPort: 80, hostPort: slot.hostPort } as const] : [];
  const config = podConfig(world.node.daemon.workspace, slot.name, {
    portMappings,
    labels: { seen: String(random.below(100)) },
    linux: { securityContext: { namespaceOptions: { pid } } },
  });
  return { ...config, metadata: { ...config.metadata, attempt: slot.attempt } };
}

/** Some callers have little patience; they leave, and another asks for the same. */
function patience(random: Random): number | undefined {
  return random.below(5) === 0 ? 5 + random.below(100) : undefined;
}

async function runPod(world: World, random: Random): Promise<void> {
  const slot = random.pick(world.slots);
  if (slot.pod) return await ask(world, random);
  const config = podConfigOf(world, slot, random);
  await mkdir(config.logDirectory ?? "", { recursive: true });
  const request = { config, runtimeHandler: world.runtimeHandler };
  const answer = await world.call("RunPodSandbox", request, patience(random));
  if (!answer && random.below(4) === 0) slot.attempt += 1; // as kubelet does when it has seen a pod that is not ready
  if (!answer || slot.pod || config.metadata?.attempt !== slot.attempt) return;
  slot.pod = { id: answer.podSandboxId, containers: new Map() };
}

async function stopPod(world: World, random: Random): Promise<void> {
  const { pod } = random.pick(world.slots);
  if (!pod) return await ask(world, random);
  world.touched.add(pod.id);
  await world.call("StopPodSandbox", { podSandboxId: pod.id }, patience(random));
}

async function removePod(world: World, random: Random): Promise<void> {
  const slot = random.pick(world.slots);
  const { pod } = slot;
  if (!pod) return await ask(world, random);
  world.touched.add(pod.id);
  const answer = await world.call("RemovePodSandbox", { podSandboxId: pod.id }, patience(random));
  if (!answer || slot.pod !== pod) return;
  slot.pod = undefined;
  if (random.below(2) === 0) slot.attempt += 1; // else the next has the very same name
}

/** How a container of the storm behaves. */
const commands = [
  { command: [], exitCode: undefined },
  { command: ["sh", "-c", "trap 'exit 0' TERM; while :; do echo tick; sleep 0.2; done"], exitCode: undefined },
  { command: ["sh", "-c", "trap '' TERM; while :; do sleep 0.5; done"], exitCode: undefined },
  { command: ["sh", "-c", "sleep 0.3; exit 7"], exitCode: 7 },
  { command: ["true"], exitCode: 0 },
  { command: ["sh", "-c", "sleep 3; echo done >&2; exit 9"], exitCode: 9 },
] as const;

const imageNames = ["busybox", "busybox", "busybox", "alias", "layers", "docker"] as const;

async function createContainer(world: World, random: Random): Promise<void> {
  const slot = random.pick(world.slots);
  const { pod } = slot;
  if (!pod) return await runPod(world, random);
  const number = random.below(commands.length);
  const name = `container${number}`; // the same name always asks for the same, whoever comes first
  const { command, exitCode } = commands[number] ?? commands[0];
  const image = world.node.image(random.pick(imageNames));
  const config = containerConfig(name, image, {
    command: [...command],
    logPath: `${slot.attempt}-${name}.log`,
    metadata: { name, attempt: slot.attempt },
  });
  const request = { podSandboxId: pod.id, config, sandboxConfig: podConfigOf(world, slot, random) };
  const answer = await world.call("CreateContainer", request, patience(random));
  if (!answer) return void (await world.call("PullImage", { image: { image } })); // it may have been for want of it
  const { containerId } = answer;
  pod.containers.set(name, { id: containerId, exitCode });
  if (random.below(2) === 0) await world.call("StartContainer", { containerId });
}

function pickContainer(world: World, random: Random): ContainerFacts | undefined {
  const containers = world.slots.flatMap(({ pod }) => [...(pod?.containers.values() ?? [])]);
  return containers[random.below(Math.max(containers.length, 1))];
}

/** Does something with a container, or makes one where there is none. */
function withContainer(work: (world: World, container: ContainerFacts, random: Random) => Promise<unknown>): Action {
  return async (world, random) => {
    const container = pickContainer(world, random);
    await (container ? work(world, container, random) : createContainer(world, random));
  };
}

async function startContainer(world: World, random: Random): Promise<void> {
  await withContainer((_, { id }) => world.call("StartContainer", { containerId: id }, patience(random)))(
    world,
    random,
  );
}

async function stopContainer(world: World, random: Random): Promise<void> {
  await withContainer(async (_, container) => {
    world.touched.add(container.id);
    const timeout = BigInt(random.below(3));
    await world.call("StopContainer", { containerId: container.id, timeout }, patience(random));
  })(world, random);
}

async function removeContainer(world: World, random: Random): Promise<void> {
  await withContainer(async (_, container) => {
    world.touched.add(container.id);
    const answer = await world.call("RemoveContainer", { containerId: container.id }, patience(random));
    if (!answer) return;
    for (const { pod } of world.slots) {
      for (const [name, { id }] of pod?.containers ?? []) if (id === container.id) pod?.containers.delete(name);
    }
  })(world, random);
}

async function execSync(world: World, random: Random): Promise<void> {
  await withContainer(async (_, { id }) => {
    const cmd = ["sh", "-c", `sleep 0.${random.below(4)}; echo said`];
    const answer = await world.call("ExecSync", { containerId: id, cmd, timeout: 30n }, patience(random));
    if (answer?.exitCode === 0 && answer.stdout.toString() !== "said\n") throw new Error("an exec lost its output");
  })(world, random);
}

async function execDuringStop(world: World, random: Random): Promise<void> {
  await withContainer(async (_, container) => {
    world.touched.add(container.id);
    const containerId = container.id;
    await Promise.all([
      world.call("ExecSync", { containerId, cmd: ["sleep", "1"], timeout: 30n }),
      world.call("StopContainer", { containerId, timeout: 1n }),
      world.call("StopContainer", { containerId, timeout: 0n }),
    ]);
  })(world, random);
}

async function updateResources(world: World, random: Random): Promise<void> {
  const linux = { cpuShares: BigInt(128 * (1 + random.below(8))), memoryLimitInBytes: 64n << 20n };
  await withContainer((_, { id }) => world.call("UpdateContainerResources", { containerId: id, linux }))(world, random);
}

async function reopenLog(world: World, random: Random): Promise<void> {
  await withContainer((_, { id }) => world.call("ReopenContainerLog", { containerId: id }))(world, random);
}

async function pullImage(world: World, random: Random): Promise<void> {
  const image = world.node.image(random.pick(imageNames));
  await world.call("PullImage", { image: { image } }, patience(random));
}

async function removeImage(world: World, random: Random): Promise<void> {
  const image = world.node.image(random.pick(imageNames));
  await world.call("RemoveImage", { image: { image } });
  if (random.below(2) === 0) await world.call("PullImage", { image: { image } });
}

async function ask(world: World, random: Random): Promise<void> {
  const questions: readonly [() => Promise<unknown>, ...(() => Promise<unknown>)[]] = [
    () => world.call("ListPodSandbox", {}),
    () => world.call("ListContainers", {}),
    () => world.call("ListContainerStats", {}),
    () => world.call("ListImages", {}),
    () => world.call("Status", { verbose: true }),
  ];
  await random.pick(questions)();
}
