import type { Call, cri, Init } from "../cri-api/index.ts";
import { criContainerState } from "./container.ts";
import type { Container } from "./container.ts";
import type { Host } from "./host.ts";
import { hasLabels } from "./sandbox-list.ts";

/** Answers from memory. Filter ids are prefixes; one that matches nothing gives an empty list. */
export async function listContainers(
  _call: Call,
  request: cri.ListContainersRequest,
  host: Host,
): Promise<Init<cri.ListContainersResponse>> {
  return { containers: filterContainers(host.containers.list(), request.filter).map(host.listItems.container) };
}

function filterContainers(containers: readonly Container[], filter: cri.ContainerFilter | null): readonly Container[] {
  if (!filter) return containers;
  const wantedState = filter.state?.state;
  return selectContainers(containers, filter).filter(
    (container) => wantedState === undefined || criContainerState(container) === wantedState,
  );
}

/** Containers by id prefix, pod id prefix and labels, all of which must hold. */
export function selectContainers(
  containers: readonly Container[],
  filter: Pick<cri.ContainerFilter, "id" | "podSandboxId" | "labelSelector">,
): readonly Container[] {
  return containers.filter(
    (container) =>
      container.id.startsWith(filter.id) &&
      container.sandboxId.startsWith(filter.podSandboxId) &&
      hasLabels(container.config.labels, filter.labelSelector),
  );
}

/** What lists show of a container. */
export function toCriContainer(container: Container): Init<cri.Container> {
  const { id, sandboxId, config, createdAtNs, imageId } = container;
  return {
    id,
    podSandboxId: sandboxId,
    metadata: config.metadata,
    image: config.image,
    imageRef: imageId, // kubelet's image garbage collection takes it for the id
    imageId,
    state: criContainerState(container),
    createdAt: createdAtNs,
    labels: config.labels,
    annotations: config.annotations,
  };
}
