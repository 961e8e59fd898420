import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { untilAborted } from "../native/index.ts";
import { applyResourceUpdate, readContainerStats, toOciResources } from "../oci/index.ts";
import type { Runtime } from "../oci/index.ts";
import { requireContainer } from "./container-status.ts";
import { isLive } from "./container.ts";
import type { LiveContainer } from "./container.ts";
import type { Host } from "./host.ts";
import { runtimeOf } from "./runtimes.ts";
import { noteUndo } from "./undo.ts";

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
  await host.operations.run(id, call.signal, () => update(id, linux, host));
  call.log.info({ containerId: id }, "container resources updated");
  return {};
}

async function update(id: string, wanted: cri.LinuxContainerResources, host: Host): Promise<void> {
  const container = requireContainer(host, id);
  if (!isLive(container)) throw new CriError(Code.FailedPrecondition, `container "${id}" has exited`);
  const { resources: before } = container;
  const resources = applyResourceUpdate(before, wanted);
  if (isDecrease(before.memoryLimitInBytes, resources.memoryLimitInBytes)) {
    await requireRoom(id, resources.memoryLimitInBytes, runtimeOf(host, container.runtime));
  }
  await change(container, resources, host);
}

/** Goes on with the update that the daemon before died in, if it did: done again it is whole, whatever there is of it. */
export async function finishUpdate(id: string, signal: AbortSignal, host: Host): Promise<void> {
  const work = host.operations.run(id, signal, async () => {
    const container = host.containers.get(id);
    if (!container || !isLive(container) || !container.wantedResources) return;
    await change(container, container.wantedResources, host);
  });
  await untilAborted(work, signal);
}

/** The record tells of a change before the kernel has any of it: a daemon that dies in between leaves it to the next. */
async function change(container: LiveContainer, wanted: cri.LinuxContainerResources, host: Host): Promise<void> {
  const { id, resources: before } = container;
  const runtime = runtimeOf(host, container.runtime);
  const prepare = (resources: cri.LinuxContainerResources): (() => Promise<void>) => {
    const limits = toOciResources(resources, host.facts.cgroupLayout, host.facts);
    return () => runtime.update(AbortSignal.timeout(updateDeadlineMs), id, limits);
  };
  const [apply, takeBack] = [prepare(wanted), prepare(before)];
  await note(id, before, wanted, host);
  let isInForce = container.wantedResources !== undefined; // by whoever died or failed over it, for all we know
  try {
    await apply();
    isInForce = true;
    await note(id, wanted, undefined, host);
  } catch (thrown) {
    if (isInForce) await takeBack(); // what the record does not say must not be in force
    await noteUndo(host.log, id, () => note(id, before, undefined, host));
    throw thrown;
  }
}

async function note(
  id: string,
  resources: cri.LinuxContainerResources,
  wantedResources: cri.LinuxContainerResources | undefined,
  host: Host,
): Promise<void> {
  await host.containers.update(id, (current) => ({ ...current, resources, wantedResources }));
}

/** 0 is no limit. */
function isDecrease(before: bigint, after: bigint): boolean {
  return after > 0n && (before === 0n || after < before);
}

/** The kernel would reclaim what it can, and then kill or refuse, with half of the limits changed. */
async function requireRoom(id: string, limit: bigint, runtime: Runtime): Promise<void> {
  const cgroups = await runtime.cgroupPaths(id);
  const usage = cgroups && (await readContainerStats(cgroups))?.memory.usageBytes;
  if (usage === undefined || usage <= limit) return;
  const text = `cannot decrease memory limit to ${limit} bytes: current usage is ${usage} bytes`;
  throw new CriError(Code.InvalidArgument, text);
}
