import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import type { Host } from "./host.ts";
import { criSandboxState } from "./sandbox.ts";
import type { Sandbox } from "./sandbox.ts";

/** Answers from memory. A filter id is a prefix; one that matches nothing gives an empty list. */
export async function listPodSandbox(
  _call: Call,
  request: cri.ListPodSandboxRequest,
  host: Host,
): Promise<Init<cri.ListPodSandboxResponse>> {
  return { items: filterSandboxes(host.sandboxes.list(), request.filter).map(host.listItems.sandbox) };
}

function filterSandboxes(sandboxes: readonly Sandbox[], filter: cri.PodSandboxFilter | null): readonly Sandbox[] {
  if (!filter) return sandboxes;
  const wantedState = filter.state?.state;
  return selectSandboxes(sandboxes, filter).filter(
    (sandbox) => wantedState === undefined || criSandboxState(sandbox) === wantedState,
  );
}

/** Sandboxes by id prefix and labels, all of which must hold. */
export function selectSandboxes(
  sandboxes: readonly Sandbox[],
  filter: Pick<cri.PodSandboxFilter, "id" | "labelSelector">,
): readonly Sandbox[] {
  return sandboxes.filter(
    ({ id, config }) => id.startsWith(filter.id) && hasLabels(config.labels, filter.labelSelector),
  );
}

/** Whether all labels of a selector are there, exactly as given. */
export function hasLabels(
  labels: Readonly<Record<string, string>>,
  selector: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(selector).every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}

/** What lists show of a pod sandbox. */
export function toCriSandbox(sandbox: Sandbox): Init<cri.PodSandbox> {
  const { id, config, createdAtNs, runtimeHandler } = sandbox;
  return {
    id,
    metadata: config.metadata,
    state: criSandboxState(sandbox),
    createdAt: createdAtNs,
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler,
  };
}

/** @throws {CriError} `NotFound` when no visible sandbox has that id. */
export function requireReadySandbox(host: Host, idOrPrefix: string): Sandbox & { state: "ready" } {
  const sandbox = host.sandboxes.require(idOrPrefix);
  if (sandbox.state === "ready") return sandbox;
  throw new CriError(Code.FailedPrecondition, `pod sandbox "${sandbox.id}" is not ready`);
}
