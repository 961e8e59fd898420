import type { Call, cri, Init } from "../cri-api/index.ts";
import { removeTree } from "../native/index.ts";
import type { Runtime } from "../oci/index.ts";
import { killContainer } from "./container-stop.ts";
import { isLive } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { unmountImageVolumes } from "./image-volumes.ts";
import { runtimeOf } from "./runtimes.ts";
import { teardownDeadlineMs } from "./undo.ts";

/** Removes a container, killing it if it lives. Idempotent; an unknown id succeeds. The log file stays: kubelet owns it. */
export async function removeContainer(
  call: Call,
  request: cri.RemoveContainerRequest,
  host: Host,
): Promise<Init<cri.RemoveContainerResponse>> {
  const container = host.containers.find(request.containerId);
  if (!container) return {};
  await removeContainerRecord(container.id, host, call.signal);
  call.log.info({ containerId: container.id }, "container removed");
  return {};
}

/** Kills, deletes and forgets one container under its operations lock; the signal only ends the waiting for the lock. */
export async function removeContainerRecord(id: string, host: Host, signal?: AbortSignal): Promise<void> {
  await host.operations.run(id, signal, async () => {
    const container = host.containers.get(id);
    if (!container) return;
    if (isLive(container)) await killContainer(id, host);
    await releaseContainer(id, [runtimeOf(host, container.runtime)], host);
    await host.containers.remove(id);
  });
}

/** Gives back what a container holds outside its record: each step idempotent, found by the id alone. */
export async function releaseContainer(id: string, runtimes: readonly Runtime[], host: Host): Promise<void> {
  const paths = containerPathsOf(host.layout, id);
  for (const runtime of runtimes) await runtime.delete(AbortSignal.timeout(teardownDeadlineMs), id, paths.bundle);
  await unmountImageVolumes(paths);
  await host.images.removeRootfs(id, paths.rootfs, AbortSignal.timeout(teardownDeadlineMs));
  await removeTree(paths.bundle);
}
