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
  const ids = new Set([sandbox.id]);
  for (const other of records.sandboxes.all()) if (isSamePod(other, sandbox)) ids.add(other.id);
  return records.containers
    .all()
    .filter((container): container is KnownContainer => container.state !== "creating" && ids.has(container.sandboxId))
    .map(toCriContainerStatus);
}

/** Whether two sandboxes are attempts at one pod. */
export function isSamePod(one: Sandbox, other: Sandbox): boolean {
  const [a, b] = [one.config.metadata, other.config.metadata];
  if (!a || !b || a.uid === "") return one.id === other.id;
  return a.uid === b.uid && a.name === b.name && a.namespace === b.namespace;
}
