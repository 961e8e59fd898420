import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { requireContainer } from "./container-status.ts";
import { runtimeOf } from "./host.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";

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
  const container = requireContainer(host, request.containerId);
  if (container.state !== "running") {
    throw new CriError(Code.FailedPrecondition, `container "${container.id}" is ${container.state}, not running`);
  }
  const { bundle } = containerPathsOf(host.layout, container.id);
  await runtimeOf(host, container.runtime).reopenLog(call.signal, bundle, container.logPath);
  return {};
}
