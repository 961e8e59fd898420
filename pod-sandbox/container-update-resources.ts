import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { applyResourceUpdate, toOciResources } from "../oci/index.ts";
import { requireContainer } from "./container-status.ts";
import { isLive } from "./container.ts";
import type { Host } from "./host.ts";
import { runtimeOf } from "./runtimes.ts";

const updateDeadlineMs = 60_000;

/**
 * Changes the limits of a created or running container; fields that are 0 or empty stay as they are. On an error
 * nothing has changed. ContainerStatus reports the values as they were set.
 *
 * @throws {CriError} `NotFound`, `FailedPrecondition` when the container has ended, `InvalidArgument` for bad values.
 */
export async function updateContainerResources(
  call: Call,
  request: cri.UpdateContainerResourcesRequest,
  host: Host,
): Promise<Init<cri.UpdateContainerResourcesResponse>> {
  const { id } = requireContainer(host, request.containerId);
  const { linux } = request;
  if (!linux) return {};
  await host.operations.run(id, call.signal, async () => {
    const container = requireContainer(host, id);
    if (!isLive(container)) throw new CriError(Code.FailedPrecondition, `container "${id}" has exited`);
    const resources = applyResourceUpdate(container.resources, linux);
    await runtimeOf(host, container.runtime).update(
      AbortSignal.timeout(updateDeadlineMs),
      id,
      toOciResources(resources, host.facts.cgroupLayout, host.facts),
    );
    await host.containers.update(id, (current) => ({ ...current, resources }));
  });
  call.log.info({ containerId: id }, "container resources updated");
  return {};
}
