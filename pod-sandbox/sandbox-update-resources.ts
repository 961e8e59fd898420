import type { Call, cri, Init } from "../cri-api/index.ts";
import type { Host } from "./host.ts";

/**
 * Notes what kubelet has changed of a pod's resources. The pod's cgroup is kubelet's and stays untouched; the record
 * shows the values from then on.
 *
 * @throws {CriError} `NotFound` for an unknown id.
 */
export async function updatePodSandboxResources(
  call: Call,
  request: cri.UpdatePodSandboxResourcesRequest,
  host: Host,
): Promise<Init<cri.UpdatePodSandboxResourcesResponse>> {
  const { id } = host.sandboxes.require(request.podSandboxId);
  await host.sandboxes.update(id, (current) => {
    const { linux } = current.config;
    if (!linux) return current;
    const overhead = request.overhead ?? linux.overhead;
    const resources = request.resources ?? linux.resources;
    return { ...current, config: { ...current.config, linux: { ...linux, overhead, resources } } };
  });
  call.log.debug({ podSandboxId: id }, "pod sandbox resources noted");
  return {};
}
