import { readFileBounded } from "../../native/index.ts";
import { countIn, countOf, readCgroupFiles } from "./cgroup-files.ts";
import type { ControllerFiles, TextOf } from "./cgroup-files.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { parseUsage, usageFiles } from "./cgroup-stats.ts";
import type { ContainerUsage } from "./cgroup-stats.ts";

/** All that a cgroup counts and metrics ask for; undefined is what this kernel or cgroup version does not tell. */
export interface CgroupCounters {
  readonly usage: ContainerUsage;
  readonly cpu: {
    readonly userNs: bigint | undefined;
    readonly systemNs: bigint | undefined;
    /** Enforcement periods of a CPU quota, those in which it ran out, and for how long. */
    readonly periods: bigint | undefined;
    readonly throttledPeriods: bigint | undefined;
    readonly throttledNs: bigint | undefined;
  };
  readonly memory: {
    readonly cacheBytes: bigint | undefined;
    readonly mappedFileBytes: bigint | undefined;
    readonly kernelBytes: bigint | undefined;
    readonly highestUsageBytes: bigint | undefined;
    /** How often the limit was hit. */
    readonly limitHits: bigint | undefined;
    readonly oomKills: bigint | undefined;
    readonly pageFaults: bigint | undefined;
    readonly majorPageFaults: bigint | undefined;
  };
  readonly taskLimit: bigint | undefined;
  readonly hugepages: readonly HugepageUsage[];
  readonly devices: readonly DeviceTraffic[];
}

export interface HugepageUsage {
  readonly pageSize: string;
  readonly usageBytes: bigint;
  readonly highestUsageBytes: bigint | undefined;
}

/** What went to and from one block device. */
export interface DeviceTraffic {
  readonly major: string;
  readonly minor: string;
  readonly readBytes: bigint;
  readonly writtenBytes: bigint;
  readonly reads: bigint;
  readonly writes: bigint;
}

const counterFiles: readonly ControllerFiles[] = [
  ...usageFiles,
  { controller: "cpuacct", legacy: ["cpuacct.usage_user", "cpuacct.usage_sys"], unified: [] },
  { controller: "cpu", legacy: ["cpu.stat"], unified: [] },
  {
    controller: "memory",
    legacy: ["memory.max_usage_in_bytes", "memory.failcnt", "memory.kmem.usage_in_bytes", "memory.oom_control"],
    unified: ["memory.peak", "memory.events"],
  },
  { controller: "pids", legacy: ["pids.max"], unified: ["pids.max"] },
  {
    controller: "blkio",
    legacy: ["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"],
    unified: ["io.stat"],
  },
];

/**
 * Everything metrics ask for, of many cgroups at once and in their order; undefined for cgroups that are gone.
 *
 * @param pageSizes Sizes of huge pages, as the hugetlb controller spells them.
 */
export async function readCgroupCounters(
  groups: readonly CgroupPaths[],
  pageSizes: readonly string[],
): Promise<readonly (CgroupCounters | undefined)[]> {
  const hugetlb = {
    controller: "hugetlb",
    legacy: pageSizes.flatMap((size) => [`hugetlb.${size}.usage_in_bytes`, `hugetlb.${size}.max_usage_in_bytes`]),
    unified: pageSizes.map((size) => `hugetlb.${size}.current`),
  };
  const texts = await readCgroupFiles(groups, [...counterFiles, hugetlb]);
  return texts.map((textOf) => parseCounters(textOf, pageSizes));
}

export function parseCounters(textOf: TextOf, pageSizes: readonly string[]): CgroupCounters | undefined {
  const usage = parseUsage(textOf);
  if (!usage) return undefined;
  return {
    usage,
    cpu: parseCpu(textOf),
    memory: parseMemory(textOf),
    taskLimit: countIn(textOf("pids.max")), // "max" reads as none
    hugepages: pageSizes.flatMap((pageSize) => parseHugepages(textOf, pageSize)),
    devices: textOf("io.stat") === "" ? legacyDevices(textOf) : unifiedDevices(textOf("io.stat")),
  };
}

function parseCpu(textOf: TextOf): CgroupCounters["cpu"] {
  const stat = textOf("cpu.stat");
  return {
    userNs: countIn(textOf("cpuacct.usage_user")) ?? microseconds(stat, "user_usec"),
    systemNs: countIn(textOf("cpuacct.usage_sys")) ?? microseconds(stat, "system_usec"),
    periods: countOf(stat, "nr_periods"),
    throttledPeriods: countOf(stat, "nr_throttled"),
    throttledNs: countOf(stat, "throttled_time") ?? microseconds(stat, "throttled_usec"),
  };
}

function microseconds(stat: string, name: string): bigint | undefined {
  const count = countOf(stat, name);
  return count === undefined ? undefined : count * 1000n;
}

function parseMemory(textOf: TextOf): CgroupCounters["memory"] {
  const stat = textOf("memory.stat");
  const events = textOf("memory.events");
  return {
    cacheBytes: countOf(stat, "total_cache") ?? countOf(stat, "file"),
    mappedFileBytes: countOf(stat, "total_mapped_file") ?? countOf(stat, "file_mapped"),
    kernelBytes: countIn(textOf("memory.kmem.usage_in_bytes")) ?? countOf(stat, "kernel"),
    highestUsageBytes: countIn(textOf("memory.max_usage_in_bytes")) ?? countIn(textOf("memory.peak")),
    limitHits: countIn(textOf("memory.failcnt")) ?? countOf(events, "max"),
    oomKills: countOf(textOf("memory.oom_control"), "oom_kill") ?? countOf(events, "oom_kill"),
    pageFaults: countOf(stat, "pgfault"),
    majorPageFaults: countOf(stat, "pgmajfault"),
  };
}

function parseHugepages(textOf: TextOf, pageSize: string): readonly HugepageUsage[] {
  const name = `hugetlb.${pageSize}`;
  const usageBytes = countIn(textOf(`${name}.usage_in_bytes`)) ?? countIn(textOf(`${name}.current`));
  if (usageBytes === undefined) return [];
  return [{ pageSize, usageBytes, highestUsageBytes: countIn(textOf(`${name}.max_usage_in_bytes`)) }];
}

/** Lines `8:0 Read 4096`, one for each kind of operation. */
function legacyDevices(textOf: TextOf): readonly DeviceTraffic[] {
  const bytes = operationsIn(textOf("blkio.throttle.io_service_bytes_recursive"));
  const requests = operationsIn(textOf("blkio.throttle.io_serviced_recursive"));
  return [...bytes].map(([device, ofDevice]) => {
    const [major = "", minor = ""] = device.split(":");
    return {
      major,
      minor,
      readBytes: ofDevice.get("Read") ?? 0n,
      writtenBytes: ofDevice.get("Write") ?? 0n,
      reads: requests.get(device)?.get("Read") ?? 0n,
      writes: requests.get(device)?.get("Write") ?? 0n,
    };
  });
}

function operationsIn(text: string): ReadonlyMap<string, ReadonlyMap<string, bigint>> {
  const devices = new Map<string, Map<string, bigint>>();
  for (const [, device, operation, count] of text.matchAll(/^(\d+:\d+) (\w+) (\d{1,20})$/gm)) {
    if (device === undefined || operation === undefined || count === undefined) continue;
    const operations = devices.get(device) ?? new Map<string, bigint>();
    devices.set(device, operations.set(operation, BigInt(count)));
  }
  return devices;
}

/** Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`. */
function unifiedDevices(text: string): readonly DeviceTraffic[] {
  return [...text.matchAll(/^(\d+):(\d+) (.*)$/gm)].map(([, major = "", minor = "", counts = ""]) => {
    const count = (name: string): bigint => BigInt(new RegExp(`\\b${name}=(\\d{1,20})\\b`).exec(counts)?.[1] ?? 0);
    return {
      major,
      minor,
      readBytes: count("rbytes"),
      writtenBytes: count("wbytes"),
      reads: count("rios"),
      writes: count("wios"),
    };
  });
}

const maxPartitionsBytes = 256 * 1024;

/** Names of the machine's block devices (`sda`) by their numbers (`8:0`). */
export async function readBlockDeviceNames(): Promise<ReadonlyMap<string, string>> {
  const text = await readFileBounded("/proc/partitions", maxPartitionsBytes);
  return parsePartitions(text?.toString("latin1") ?? "");
}

export function parsePartitions(text: string): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const [, major, minor, name] of text.matchAll(/^ *(\d+) +(\d+) +\d+ (\S+)$/gm))
    names.set(`${major}:${minor}`, name ?? "");
  return names;
}
