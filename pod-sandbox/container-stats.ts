import type { Call, cri, Init } from "../cri-api/index.ts";
import { selectContainers } from "./container-list.ts";
import { requireContainer } from "./container-status.ts";
import { isLive } from "./container.ts";
import type { Container } from "./container.ts";
import { toCriFilesystemUsage, toCriUsage } from "./cri-usage.ts";
import type { Host } from "./host.ts";
import { runtimeOf } from "./runtimes.ts";
import type { Sample, Subject } from "./stats-reader.ts";

/** @throws {CriError} `NotFound` for an unknown id. */
export async function containerStats(
  _call: Call,
  request: cri.ContainerStatsRequest,
  host: Host,
): Promise<Init<cri.ContainerStatsResponse>> {
  const container = requireContainer(host, request.containerId);
  const samples = await host.stats.read(containerSubjects([container], host));
  return { stats: statsOf(container, samples.get(container.id), host) };
}

/** Every known container; those that do not run have no cpu and memory. */
export async function listContainerStats(
  _call: Call,
  request: cri.ListContainerStatsRequest,
  host: Host,
): Promise<Init<cri.ListContainerStatsResponse>> {
  const containers = host.containers.list();
  const selected = request.filter ? selectContainers(containers, request.filter) : containers;
  const samples = await host.stats.read(containerSubjects(selected, host));
  return { stats: selected.map((container) => statsOf(container, samples.get(container.id), host)) };
}

/** Those of the containers that have cgroups to be counted. */
export function containerSubjects(containers: readonly Container[], host: Host): readonly Subject[] {
  return containers
    .filter(isLive)
    .map(({ id, runtime }) => ({ id, locate: () => runtimeOf(host, runtime).cgroupPaths(id) }));
}

/** One container's stats; what it has written is known without a sample too. */
export function statsOf(container: Container, sample: Sample | undefined, host: Host): Init<cri.ContainerStats> {
  const { id, config } = container;
  const layer = host.images.rootfsUsage(id);
  return {
    attributes: { id, metadata: config.metadata, labels: config.labels, annotations: config.annotations },
    ...(sample ? toCriUsage(sample) : {}),
    ...(layer ? { writableLayer: toCriFilesystemUsage(layer) } : {}),
  };
}
