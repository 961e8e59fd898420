import type { Sample } from "./stats-reader.ts";

/** What several cgroups have used together. Limits and stalls do not add up, and are left out. */
export function sumOf(samples: readonly Sample[]): Sample | undefined {
  const [first] = samples;
  if (!first) return undefined;
  const sum = (pick: (sample: Sample) => bigint | undefined): bigint =>
    samples.reduce((total, sample) => total + (pick(sample) ?? 0n), 0n);
  const isKnown = (pick: (sample: Sample) => unknown): boolean => samples.some((sample) => pick(sample) !== undefined);
  return {
    timestampNs: first.timestampNs,
    cpuUsageNs: sum(({ cpuUsageNs }) => cpuUsageNs),
    usageNanoCores: isKnown((sample) => sample.usageNanoCores) ? sum((sample) => sample.usageNanoCores) : undefined,
    memory: {
      usageBytes: sum(({ memory }) => memory.usageBytes),
      workingSetBytes: sum(({ memory }) => memory.workingSetBytes),
      rssBytes: sum(({ memory }) => memory.rssBytes),
      pageFaults: sum(({ memory }) => memory.pageFaults),
      majorPageFaults: sum(({ memory }) => memory.majorPageFaults),
      availableBytes: undefined,
    },
    swap: isKnown(({ swap }) => swap)
      ? { usageBytes: sum(({ swap }) => swap?.usageBytes), availableBytes: undefined }
      : undefined,
    taskCount: isKnown(({ taskCount }) => taskCount) ? sum(({ taskCount }) => taskCount) : undefined,
    processCount: sum(({ processCount }) => processCount),
    pressure: { cpu: undefined, memory: undefined, io: undefined },
  };
}
