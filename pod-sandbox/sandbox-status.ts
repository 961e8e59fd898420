import type { Call, cri, Init } from "../cri-api/index.ts";
import type { Host } from "./host.ts";
import { toInfoJson } from "./info-json.ts";
import { sandboxPathsOf } from "./layout.ts";
import { usesHostNetwork } from "./network.ts";
import { podContainerStatuses } from "./pod-containers.ts";
import { criSandboxState, sandboxIps } from "./sandbox.ts";
import type { Sandbox } from "./sandbox.ts";

/** @throws {CriError} `NotFound` for an unknown id. */
export async function podSandboxStatus(
  _call: Call,
  request: cri.PodSandboxStatusRequest,
  host: Host,
): Promise<Init<cri.PodSandboxStatusResponse>> {
  const sandbox = host.sandboxes.require(request.podSandboxId);
  return {
    status: toCriSandboxStatus(sandbox),
    info: request.verbose ? verboseInfo(sandbox, host) : {},
    containersStatuses: podContainerStatuses(sandbox, host),
    timestamp: host.clock(),
  };
}

/** One sandbox as PodSandboxStatus and the events report it. */
export function toCriSandboxStatus(sandbox: Sandbox): Init<cri.PodSandboxStatus> {
  const { id, config, createdAtNs, runtimeHandler } = sandbox;
  const [ip = "", ...additional] = sandboxIps(sandbox);
  return {
    id,
    metadata: config.metadata,
    state: criSandboxState(sandbox),
    createdAt: createdAtNs,
    network: { ip, additionalIps: additional.map((address) => ({ ip: address })) },
    linux: { namespaces: { options: config.linux?.securityContext?.namespaceOptions ?? null } },
    labels: config.labels,
    annotations: config.annotations,
    runtimeHandler,
  };
}

function verboseInfo(sandbox: Sandbox, host: Host): Record<string, string> {
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  const pid = sandbox.state === "ready" ? (sandbox.pause?.pid ?? 0) : 0;
  const info = {
    pid,
    state: sandbox.state,
    runtimeHandler: sandbox.runtimeHandler,
    runtimeType: sandbox.runtime,
    netns: usesHostNetwork(sandbox.config) ? "" : paths.netns,
    config: sandbox.config,
  };
  return { info: toInfoJson(info) };
}
