import { countIn, countOf, readCgroupFiles } from "./cgroup-files.ts";
import type { ControllerFiles, TextOf } from "./cgroup-files.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";

/** What a container has used and may use, as its cgroups count it. */
export interface ContainerUsage {
  /** Processor time since the container was made. */
  readonly cpuUsageNs: bigint;
  readonly memory: {
    readonly usageBytes: bigint;
    /** Usage without the file cache that the kernel would give up first. */
    readonly workingSetBytes: bigint;
    readonly rssBytes: bigint;
    readonly pageFaults: bigint;
    readonly majorPageFaults: bigint;
    /** Limit less working set; undefined without a limit. */
    readonly availableBytes: bigint | undefined;
  };
  /** Undefined where the kernel does not account swap. */
  readonly swap: { readonly usageBytes: bigint; readonly availableBytes: bigint | undefined } | undefined;
  /** Processes and threads; undefined without a pids controller. */
  readonly taskCount: bigint | undefined;
  /** Processes in the cgroup itself; those of cgroups that were made below it are not among them. */
  readonly processCount: bigint;
  /** Undefined where the kernel does not count stalls. */
  readonly pressure: Readonly<Record<PressureKind, Pressure | undefined>>;
}

export type PressureKind = "cpu" | "memory" | "io";

/** How long work waited for a resource: some of it, or all of it at once. */
export interface Pressure {
  readonly some: Stall;
  readonly full: Stall;
}

/** Shares in percent of the last 10, 60 and 300 seconds. */
export interface Stall {
  readonly totalNs: bigint;
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
}

/** v1 writes "no limit" as the largest multiple of a page below 2^63; no machine has half of that. */
const unlimitedFrom = 1n << 62n;

/** What a sample is made of. */
export const usageFiles: readonly ControllerFiles[] = [
  { controller: "cpuacct", legacy: ["cpuacct.usage"], unified: ["cpu.stat", "cpu.pressure", "io.pressure"] },
  {
    controller: "memory",
    legacy: ["memory.usage_in_bytes", "memory.stat"],
    unified: [
      "memory.current",
      "memory.stat",
      "memory.max",
      "memory.swap.current",
      "memory.swap.max",
      "memory.pressure",
    ],
  },
  { controller: "pids", legacy: ["pids.current", "cgroup.procs"], unified: ["pids.current", "cgroup.procs"] },
];

/**
 * One sample from cgroup files alone: v1, v2, or some controllers on each.
 *
 * @returns Undefined when the container's cgroups are gone.
 */
export async function readContainerStats(paths: CgroupPaths): Promise<ContainerUsage | undefined> {
  return (await readCgroupUsages([paths]))[0];
}

/** Samples of many cgroups at once, in their order; a pod's cgroup counts all that is below it. */
export async function readCgroupUsages(
  groups: readonly CgroupPaths[],
): Promise<readonly (ContainerUsage | undefined)[]> {
  return (await readCgroupFiles(groups, usageFiles)).map(parseUsage);
}

/** Whichever of v1's and v2's names is there decides. */
export function parseUsage(textOf: TextOf): ContainerUsage | undefined {
  const cpuUsageNs = countIn(textOf("cpuacct.usage")) ?? scaled(countOf(textOf("cpu.stat"), "usage_usec"), 1000n);
  const memory = textOf("memory.current") === "" ? legacyMemory(textOf) : unifiedMemory(textOf);
  if (cpuUsageNs === undefined || memory === undefined) return undefined;
  return {
    cpuUsageNs,
    ...memory,
    taskCount: countIn(textOf("pids.current")),
    processCount: BigInt(textOf("cgroup.procs").split("\n").length - 1),
    pressure: {
      cpu: parsePressure(textOf("cpu.pressure")),
      memory: parsePressure(textOf("memory.pressure")),
      io: parsePressure(textOf("io.pressure")),
    },
  };
}

function legacyMemory(textOf: TextOf): Pick<ContainerUsage, "memory" | "swap"> | undefined {
  const usageBytes = countIn(textOf("memory.usage_in_bytes"));
  if (usageBytes === undefined) return undefined;
  const stat = textOf("memory.stat");
  const workingSetBytes = less(usageBytes, countOf(stat, "total_inactive_file"));
  const limit = bounded(countOf(stat, "hierarchical_memory_limit"));
  const swapUsage = countOf(stat, "total_swap");
  const bothLimit = bounded(countOf(stat, "hierarchical_memsw_limit"));
  const swapLimit = bothLimit === undefined || limit === undefined ? undefined : less(bothLimit, limit);
  return {
    memory: {
      usageBytes,
      workingSetBytes,
      rssBytes: countOf(stat, "total_rss") ?? 0n,
      pageFaults: countOf(stat, "total_pgfault") ?? 0n,
      majorPageFaults: countOf(stat, "total_pgmajfault") ?? 0n,
      availableBytes: limit === undefined ? undefined : less(limit, workingSetBytes),
    },
    swap: swapOf(swapUsage, swapLimit),
  };
}

function unifiedMemory(textOf: TextOf): Pick<ContainerUsage, "memory" | "swap"> | undefined {
  const usageBytes = countIn(textOf("memory.current"));
  if (usageBytes === undefined) return undefined;
  const stat = textOf("memory.stat");
  const workingSetBytes = less(usageBytes, countOf(stat, "inactive_file"));
  const limit = countIn(textOf("memory.max")); // "max" reads as none
  return {
    memory: {
      usageBytes,
      workingSetBytes,
      rssBytes: countOf(stat, "anon") ?? 0n,
      pageFaults: countOf(stat, "pgfault") ?? 0n,
      majorPageFaults: countOf(stat, "pgmajfault") ?? 0n,
      availableBytes: limit === undefined ? undefined : less(limit, workingSetBytes),
    },
    swap: swapOf(countIn(textOf("memory.swap.current")), countIn(textOf("memory.swap.max"))),
  };
}

function swapOf(usageBytes: bigint | undefined, limit: bigint | undefined): ContainerUsage["swap"] {
  if (usageBytes === undefined) return undefined;
  return { usageBytes, availableBytes: limit === undefined ? undefined : less(limit, usageBytes) };
}

/** `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, the total in microseconds, and the same of `full`. */
function parsePressure(text: string): Pressure | undefined {
  const [some, full] = ["some", "full"].map((kind) => parseStall(text, kind));
  return some && full && { some, full };
}

function parseStall(text: string, kind: string): Stall | undefined {
  const line = text.split("\n").find((each) => each.startsWith(`${kind} `));
  const [, avg10, avg60, avg300, total] =
    /avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) total=(\d{1,20})$/.exec(line ?? "") ?? [];
  if (total === undefined) return undefined;
  return { totalNs: BigInt(total) * 1000n, avg10: Number(avg10), avg60: Number(avg60), avg300: Number(avg300) };
}

function scaled(value: bigint | undefined, factor: bigint): bigint | undefined {
  return value === undefined ? undefined : value * factor;
}

function bounded(value: bigint | undefined): bigint | undefined {
  return value !== undefined && value < unlimitedFrom ? value : undefined;
}

function less(from: bigint, what: bigint | undefined): bigint {
  const rest = from - (what ?? 0n);
  return rest > 0n ? rest : 0n;
}
