import { readCgroupUsages } from "../oci/index.ts";
import type { CgroupPaths, ContainerUsage } from "../oci/index.ts";
import { nowNs } from "./clock.ts";

/** Something that cgroups count: a container, a pod. */
export interface Subject {
  readonly id: string;
  /** Asked once, before the first sample. */
  locate(): Promise<CgroupPaths | undefined>;
}

export interface Sample extends ContainerUsage {
  readonly timestampNs: bigint;
  /** Mean of the time since the sample before; undefined for the first. */
  readonly usageNanoCores: bigint | undefined;
}

/** Reads usage from cgroup files, knowing where each subject's are and what its last sample was. */
export interface StatsReader {
  /** By id; those that ended while they were being read are not among them. */
  read(subjects: readonly Subject[]): Promise<ReadonlyMap<string, Sample>>;
  /** Where a subject's cgroups are, if it has any. */
  locate(subject: Subject): Promise<CgroupPaths | undefined>;
  forget(id: string): void;
}

interface Known {
  readonly cgroups: CgroupPaths;
  last: (Pick<Instant, "atNs"> & { readonly cpuUsageNs: bigint }) | undefined;
}

/** When a sample was taken, on the clock that nobody sets and on the one that people read. */
interface Instant {
  readonly atNs: bigint;
  readonly timestampNs: bigint;
}

/** Rates over a shorter time are noise. */
const shortestIntervalNs = 100_000_000n;

export function createStatsReader(): StatsReader {
  const known = new Map<string, Known>();

  async function locate(subject: Subject): Promise<CgroupPaths | undefined> {
    const found = known.get(subject.id)?.cgroups;
    if (found) return found;
    const cgroups = await subject.locate();
    if (cgroups) known.set(subject.id, { cgroups, last: undefined });
    return cgroups;
  }

  function toSample(id: string, usage: ContainerUsage, { atNs, timestampNs }: Instant): Sample {
    const subject = known.get(id);
    const last = subject?.last;
    const elapsedNs = last ? atNs - last.atNs : 0n;
    const { cpuUsageNs } = usage;
    if (subject && (!last || elapsedNs >= shortestIntervalNs)) subject.last = { atNs, cpuUsageNs };
    const spentNs = last && cpuUsageNs > last.cpuUsageNs ? cpuUsageNs - last.cpuUsageNs : 0n;
    return {
      ...usage,
      timestampNs,
      usageNanoCores: elapsedNs > 0n ? (spentNs * 1_000_000_000n) / elapsedNs : undefined,
    };
  }

  return {
    locate,
    async read(subjects) {
      const groups = await Promise.all(subjects.map(locate));
      const found = subjects.flatMap(({ id }, index) => {
        const cgroups = groups[index];
        return cgroups ? [{ id, cgroups }] : [];
      });
      const usages = await readCgroupUsages(found.map(({ cgroups }) => cgroups));
      const instant = { atNs: process.hrtime.bigint(), timestampNs: nowNs() };
      const samples = new Map<string, Sample>();
      for (const [index, { id }] of found.entries()) {
        const usage = usages[index];
        if (usage) samples.set(id, toSample(id, usage, instant));
      }
      return samples;
    },
    forget: (id) => void known.delete(id),
  };
}
