import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { stopSignalName } from "../oci/index.ts";
import { criContainerState } from "./container.ts";
import type { KnownContainer } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { readSpec } from "./bundle.ts";
import { toInfoJson } from "./info-json.ts";

/** @throws {CriError} `NotFound` for an unknown id. */
export async function containerStatus(
  _call: Call,
  request: cri.ContainerStatusRequest,
  host: Host,
): Promise<Init<cri.ContainerStatusResponse>> {
  const container = requireContainer(host, request.containerId);
  return { status: toCriContainerStatus(container), info: request.verbose ? await verboseInfo(container, host) : {} };
}

/** A container that clients can see. @throws {CriError} `NotFound`. */
export function requireContainer(host: Host, idOrPrefix: string): KnownContainer {
  const container = host.containers.require(idOrPrefix);
  if (container.state !== "creating") return container;
  throw new CriError(Code.NotFound, `container "${idOrPrefix}" not found`);
}

/** One container as ContainerStatus and the events report it. */
export function toCriContainerStatus(container: KnownContainer): Init<cri.ContainerStatus> {
  const { id, config, createdAtNs, imageRef, imageId, logPath, user, resources } = container;
  const ending =
    container.state === "exited"
      ? {
          finishedAt: container.finishedAtNs,
          exitCode: container.exitCode,
          reason: container.reason,
          message: container.message,
        }
      : {};
  return {
    id,
    metadata: config.metadata,
    state: criContainerState(container),
    createdAt: createdAtNs,
    startedAt: container.state === "created" ? 0n : container.startedAtNs,
    ...ending,
    image: config.image,
    imageRef,
    imageId,
    labels: config.labels,
    annotations: config.annotations,
    mounts: config.mounts,
    logPath,
    resources: { linux: resources },
    user: {
      linux: {
        uid: BigInt(user.uid),
        gid: BigInt(user.gid),
        supplementalGroups: user.supplementalGroups.map(BigInt),
      },
    },
    stopSignal: stopSignalName(container.stopSignal),
  };
}

async function verboseInfo(container: KnownContainer, host: Host): Promise<Record<string, string>> {
  const { config, runtime, sandboxId } = container;
  const info = {
    sandboxID: sandboxId,
    pid: container.state === "exited" ? 0 : container.init.pid,
    runtimeHandler: runtime,
    privileged: config.linux?.securityContext?.privileged ?? false,
    config: { ...config, envs: config.envs.map(({ key, value }) => ({ key, value: value.toString() })) },
    runtimeSpec: await readSpec(containerPathsOf(host.layout, container.id).bundle),
  };
  return { info: toInfoJson(info) };
}
