import type { Call, cri, Init } from "../cri-api/index.ts";
import { requireRunning } from "./container-streams.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { runtimeOf } from "./runtimes.ts";

/**
 * Makes the monitor open the log path anew, after kubelet has renamed the file. Resolves when the new file is there.
 *
 * @throws {CriError} `NotFound`; `FailedPrecondition` when the container is not running, and then no file is made.
 */
export async function reopenContainerLog(
  call: Call,
  request: cri.ReopenContainerLogRequest,
  host: Host,
): Promise<Init<cri.ReopenContainerLogResponse>> {
  const container = requireRunning(host, request.containerId);
  const { bundle } = containerPathsOf(host.layout, container.id);
  await runtimeOf(host, container.runtime).reopenLog(call.signal, bundle, container.logPath);
  return {};
}
