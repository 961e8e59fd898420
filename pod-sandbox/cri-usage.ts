import type { cri, Init } from "../cri-api/index.ts";
import type { RootfsUsage } from "../image-service/index.ts";
import type { Pressure, Stall } from "../oci/index.ts";
import type { Sample } from "./stats-reader.ts";

/** A sample as the stats messages of containers and of pods have it. */
export function toCriUsage(sample: Sample): {
  readonly cpu: Init<cri.CpuUsage>;
  readonly memory: Init<cri.MemoryUsage>;
  readonly swap: Init<cri.SwapUsage> | null;
  readonly io: Init<cri.IoUsage> | null;
} {
  const { timestampNs: timestamp, memory, swap, pressure } = sample;
  return {
    cpu: {
      timestamp,
      usageCoreNanoSeconds: { value: sample.cpuUsageNs },
      usageNanoCores: valueOf(sample.usageNanoCores),
      psi: toPsi(pressure.cpu),
    },
    memory: {
      timestamp,
      workingSetBytes: { value: memory.workingSetBytes },
      availableBytes: valueOf(memory.availableBytes),
      usageBytes: { value: memory.usageBytes },
      rssBytes: { value: memory.rssBytes },
      pageFaults: { value: memory.pageFaults },
      majorPageFaults: { value: memory.majorPageFaults },
      psi: toPsi(pressure.memory),
    },
    swap: swap
      ? { timestamp, swapUsageBytes: { value: swap.usageBytes }, swapAvailableBytes: valueOf(swap.availableBytes) }
      : null,
    io: pressure.io ? { timestamp, psi: toPsi(pressure.io) } : null,
  };
}

export function valueOf(value: bigint | undefined): Init<cri.UInt64Value> | null {
  return value === undefined ? null : { value };
}

function toPsi(pressure: Pressure | undefined): Init<cri.PsiStats> | null {
  return pressure ? { Some: toPsiData(pressure.some), Full: toPsiData(pressure.full) } : null;
}

function toPsiData({ totalNs, avg10, avg60, avg300 }: Stall): Init<cri.PsiData> {
  return { Total: totalNs, Avg10: avg10, Avg60: avg60, Avg300: avg300 };
}

export function toCriFilesystemUsage(layer: RootfsUsage): Init<cri.FilesystemUsage> {
  return {
    timestamp: layer.timestampNs,
    fsId: { mountpoint: layer.mountpoint },
    usedBytes: { value: layer.usedBytes },
    inodesUsed: { value: layer.inodesUsed },
  };
}
