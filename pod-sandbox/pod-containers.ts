import type { cri, Init } from "../cri-api/index.ts";
import { toCriContainerStatus } from "./container-status.ts";
import type { Container, KnownContainer } from "./container.ts";
import type { RecordStore } from "./record-store.ts";
import type { Sandbox } from "./sandbox.ts";

/** All that is known of pods and containers. */
export interface Records {
  readonly sandboxes: RecordStore<Sandbox>;
  readonly containers: RecordStore<Container>;
}

/** Statuses of all containers of a pod, those of its earlier sandboxes too: kubelet takes the list for the whole pod. */
export function podContainerStatuses(sandbox: Sandbox, records: Records): readonly Init<cri.ContainerStatus>[] {
  return podContainers(sandbox, records)
    .filter((container): container is KnownContainer => container.state !== "creating")
    .map(toCriContainerStatus);
}

/** All containers of a pod, those of its earlier sandboxes too. */
export function podContainers(sandbox: Sandbox, records: Records): readonly Container[] {
  const ids = new Set([sandbox.id]);
  for (const other of records.sandboxes.all()) if (isSamePod(other, sandbox)) ids.add(other.id);
  return records.containers.all().filter(({ sandboxId }) => ids.has(sandboxId));
}

/** Whether two sandboxes are attempts at one pod. */
export function isSamePod(one: Pick<Sandbox, "id" | "config">, other: Pick<Sandbox, "id" | "config">): boolean {
  const [a, b] = [one.config.metadata, other.config.metadata];
  if (!a || !b || a.uid === "") return one.id === other.id;
  return a.uid === b.uid && a.name === b.name && a.namespace === b.namespace;
}
