import type { Call, cri, Init } from "../cri-api/index.ts";
import { readContainerStats } from "../oci/index.ts";
import type { CgroupPaths, ContainerUsage, Runtime } from "../oci/index.ts";
import { selectContainers } from "./container-list.ts";
import { requireContainer } from "./container-status.ts";
import { isLive } from "./container.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { Host } from "./host.ts";

/** Reads usage from cgroup files, knowing each container's cgroups and its last sample. */
export interface StatsReader {
  /** Undefined when the container ended while it was being read. */
  read(container: LiveContainer): Promise<Sample | undefined>;
  forget(id: string): void;
}

interface Sample extends ContainerUsage {
  readonly timestampNs: bigint;
  /** Mean of the time since the sample before; undefined for the first. */
  readonly usageNanoCores: bigint | undefined;
}

interface Known {
  readonly cgroups: CgroupPaths;
  readonly last?: { readonly timestampNs: bigint; readonly cpuUsageNs: bigint };
}

/** Rates over a shorter time are noise. */
const shortestIntervalNs = 100_000_000n;

export function createStatsReader(runtimes: ReadonlyMap<string, Runtime>): StatsReader {
  const known = new Map<string, Known>();
  async function firstLook(container: LiveContainer): Promise<Known | undefined> {
    const cgroups = await runtimes.get(container.runtime)?.cgroupPaths(container.id);
    return cgroups && { cgroups };
  }
  return {
    async read(container) {
      const found = known.get(container.id) ?? (await firstLook(container));
      if (!found) return undefined;
      const { cgroups, last } = found;
      const usage = await readContainerStats(cgroups);
      if (!usage) return undefined;
      const timestampNs = BigInt(Date.now()) * 1_000_000n;
      const elapsedNs = last ? timestampNs - last.timestampNs : 0n;
      const isFresh = last === undefined || elapsedNs >= shortestIntervalNs;
      known.set(container.id, { cgroups, last: isFresh ? { timestampNs, cpuUsageNs: usage.cpuUsageNs } : last });
      const usageNanoCores =
        last && elapsedNs > 0n ? ((usage.cpuUsageNs - last.cpuUsageNs) * 1_000_000_000n) / elapsedNs : undefined;
      return { ...usage, timestampNs, usageNanoCores };
    },
    forget: (id) => void known.delete(id),
  };
}

/** @throws {CriError} `NotFound` for an unknown id. */
export async function containerStats(
  _call: Call,
  request: cri.ContainerStatsRequest,
  host: Host,
): Promise<Init<cri.ContainerStatsResponse>> {
  return { stats: await statsOf(requireContainer(host, request.containerId), host) };
}

/** Every known container; those that do not run have no cpu and memory. */
export async function listContainerStats(
  _call: Call,
  request: cri.ListContainerStatsRequest,
  host: Host,
): Promise<Init<cri.ListContainerStatsResponse>> {
  const containers = host.containers.list();
  const selected = request.filter ? selectContainers(containers, request.filter) : containers;
  return { stats: await Promise.all(selected.map((container) => statsOf(container, host))) };
}

async function statsOf(container: Container, host: Host): Promise<Init<cri.ContainerStats>> {
  const { id, config } = container;
  const sample = isLive(container) ? await host.stats.read(container) : undefined;
  const layer = host.images.rootfsUsage(id);
  return {
    attributes: { id, metadata: config.metadata, labels: config.labels, annotations: config.annotations },
    ...(sample ? toCriUsage(sample) : {}),
    ...(layer ? { writableLayer: toCriFilesystemUsage(layer) } : {}),
  };
}

function toCriUsage(sample: Sample): Pick<Init<cri.ContainerStats>, "cpu" | "memory" | "swap"> {
  const { timestampNs: timestamp, memory, swap } = sample;
  return {
    cpu: {
      timestamp,
      usageCoreNanoSeconds: { value: sample.cpuUsageNs },
      usageNanoCores: sample.usageNanoCores === undefined ? null : { value: sample.usageNanoCores },
    },
    memory: {
      timestamp,
      workingSetBytes: { value: memory.workingSetBytes },
      availableBytes: memory.availableBytes === undefined ? null : { value: memory.availableBytes },
      usageBytes: { value: memory.usageBytes },
      rssBytes: { value: memory.rssBytes },
      pageFaults: { value: memory.pageFaults },
      majorPageFaults: { value: memory.majorPageFaults },
    },
    ...(swap
      ? {
          swap: {
            timestamp,
            swapUsageBytes: { value: swap.usageBytes },
            swapAvailableBytes: swap.availableBytes === undefined ? null : { value: swap.availableBytes },
          },
        }
      : {}),
  };
}

interface LayerUsage {
  readonly usedBytes: bigint;
  readonly inodesUsed: bigint;
  readonly timestampNs: bigint;
  readonly mountpoint: string;
}

function toCriFilesystemUsage(layer: LayerUsage): Init<cri.FilesystemUsage> {
  return {
    timestamp: layer.timestampNs,
    fsId: { mountpoint: layer.mountpoint },
    usedBytes: { value: layer.usedBytes },
    inodesUsed: { value: layer.inodesUsed },
  };
}
