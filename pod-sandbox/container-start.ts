import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError, toCriError } from "../cri-api/index.ts";
import { advanceContainer, isLive } from "./container.ts";
import type { Container, ContainerIn } from "./container.ts";
import { nowNs } from "./clock.ts";
import { endContainer } from "./container-ending.ts";
import type { Host } from "./host.ts";
import { runtimeOf } from "./runtimes.ts";
import { requireReadySandbox } from "./sandbox-list.ts";

const startDeadlineMs = 120_000;
const sigkill = 9;
/** What a container that never came to life is reported to have exited with, as containerd does. */
const startErrorExitCode = 128;

/**
 * Starts a created container.
 *
 * @throws {CriError} `NotFound`, `FailedPrecondition` when it is not in CREATED or its pod is not ready; when the
 * runtime refuses, the container ends with reason `StartError` and the runtime's words.
 */
export async function startContainer(
  call: Call,
  request: cri.StartContainerRequest,
  host: Host,
): Promise<Init<cri.StartContainerResponse>> {
  const { id } = host.containers.require(request.containerId);
  await host.operations.run(id, call.signal, () => start(id, host));
  call.log.info({ containerId: id }, "container started");
  return {};
}

async function start(id: string, host: Host): Promise<void> {
  const container = host.containers.require(id);
  if (container.state !== "created") {
    throw new CriError(Code.FailedPrecondition, `container "${id}" is ${container.state}, not created`);
  }
  requireReadySandbox(host, container.sandboxId);
  await host.exits.whileStarting(id, async () => {
    try {
      await runtimeOf(host, container.runtime).start(AbortSignal.timeout(startDeadlineMs), id);
    } catch (thrown) {
      await failStart(container, toCriError(thrown).message, host);
      throw thrown;
    }
    const startedAtNs = nowNs();
    await host.containers.update(id, (current) => toRunning(current, startedAtNs));
  });
}

/** A start that took too long may find the end already written down: then only its time is still missing. */
function toRunning(current: Container, startedAtNs: bigint): Container {
  if (current.state === "exited" && current.startedAtNs === 0n) {
    const { finishedAtNs } = current;
    return { ...current, startedAtNs: startedAtNs < finishedAtNs ? startedAtNs : finishedAtNs };
  }
  if (current.state !== "created") return current;
  return advanceContainer(current, { ...current, startedAtNs, state: "running" });
}

/** Must not hide why the start failed: what it cannot do is left to StopContainer. */
async function failStart(container: ContainerIn<"created">, message: string, host: Host): Promise<void> {
  const ending = {
    startedAtNs: 0n,
    finishedAtNs: nowNs(),
    exitCode: startErrorExitCode,
    reason: "StartError",
    message,
  };
  const steps = [
    () =>
      host.containers.update(container.id, (current) => (isLive(current) ? endContainer(current, ending) : current)),
    () => runtimeOf(host, container.runtime).kill(container.id, container.init, sigkill, { all: true }),
  ];
  for (const step of steps) {
    await step().catch((thrown: unknown) => {
      host.log.warn(
        { containerId: container.id, err: String(thrown) },
        "a container that did not start is not yet gone",
      );
    });
  }
}
