import type { cri } from "../../cri-api/index.ts";
import type { CriClient } from "../harness/cri-client.ts";
import type { ContainerFacts, World } from "./world.ts";

/** Looks whether what clients were told, and nobody has asked to undo, still holds. Returns what does not. */
export async function findBrokenPromises({ node, slots, touched }: World): Promise<readonly string[]> {
  const { client } = node.daemon;
  const [{ items }, { containers }] = await Promise.all([client.call("ListPodSandbox"), client.call("ListContainers")]);
  const podStates = new Map(items.map(({ id, state }) => [id, state]));
  const containerStates = new Map(containers.map(({ id, state }) => [id, state]));
  const broken: string[] = [];
  for (const { pod, name } of slots) {
    if (!pod || touched.has(pod.id)) continue;
    if (podStates.get(pod.id) !== "SANDBOX_READY") {
      broken.push(`pod ${name} (${pod.id}) is ${podStates.get(pod.id) ?? "gone"}, and nobody has stopped it`);
    }
    for (const container of pod.containers.values()) {
      if (touched.has(container.id)) continue;
      const problem = await doubt(client, container, containerStates.get(container.id));
      if (problem !== undefined) broken.push(`container ${container.id} of pod ${name} ${problem}`);
    }
  }
  return broken;
}

async function doubt(
  client: CriClient,
  { id, exitCode }: ContainerFacts,
  state: cri.ContainerState | undefined,
): Promise<string | undefined> {
  if (state === undefined) return "is gone, and nobody has removed it";
  if (state !== "CONTAINER_EXITED") return undefined;
  const { status } = await client.call("ContainerStatus", { containerId: id });
  if (exitCode === undefined) return `ended with ${status?.exitCode}, unasked`;
  return status?.exitCode === exitCode ? undefined : `ended with ${exitCode}, and ${status?.exitCode} is told`;
}
