import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import type { Host } from "./host.ts";
import { teardownDeadlineMs } from "./undo.ts";

/**
 * Stops a container: its stop signal, `timeout` seconds of grace, SIGKILL; 0 kills at once. Resolves when its process
 * is gone. Idempotent; an unknown id succeeds. A caller that gives up does not call the stop off.
 *
 * @throws {CriError} `InvalidArgument` for a negative timeout.
 */
export async function stopContainer(
  call: Call,
  request: cri.StopContainerRequest,
  host: Host,
): Promise<Init<cri.StopContainerResponse>> {
  if (request.timeout < 0n) throw new CriError(Code.InvalidArgument, `negative stop timeout ${request.timeout}`);
  const container = host.containers.find(request.containerId);
  if (!container) return {};
  await host.stops.stop(container.id, Number(request.timeout) * 1000, call.signal);
  call.log.info({ containerId: container.id }, "container stopped");
  return {};
}

/**
 * Kills a container, whoever waits for it.
 *
 * @throws {CriError} `DeadlineExceeded` for a process that not even SIGKILL ends; the stop loop goes on with it.
 */
export async function killContainer(id: string, host: Host): Promise<void> {
  const seconds = teardownDeadlineMs / 1000;
  const controller = new AbortController();
  const late = new CriError(Code.DeadlineExceeded, `container "${id}" survives SIGKILL for ${seconds} s`);
  const timer = setTimeout(() => controller.abort(late), teardownDeadlineMs);
  try {
    await host.stops.stop(id, 0, controller.signal);
  } finally {
    clearTimeout(timer);
  }
}
