import { join } from "node:path";
import { readFilesBounded } from "../../native/index.ts";
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
}

const maxFileBytes = 16 * 1024;
/** v1 writes "no limit" as the largest multiple of a page below 2^63; no machine has half of that. */
const unlimitedFrom = 1n << 62n;

/**
 * One sample from cgroup files alone: v1, v2, or some controllers on each.
 *
 * @returns Undefined when the container's cgroups are gone.
 */
export async function readContainerStats(paths: CgroupPaths): Promise<ContainerUsage | undefined> {
  const { cpuacct, memory, pids } = paths.controllers;
  const groups = { cpu: cpuacct ?? paths.unified, memory: memory ?? paths.unified, pids: pids ?? paths.unified };
  const wanted = [
    ...(cpuacct === undefined ? ["cpu/cpu.stat"] : ["cpu/cpuacct.usage"]),
    ...(memory === undefined ? unifiedMemoryFiles : legacyMemoryFiles),
    "pids/pids.current",
  ].map((name) => name.split("/"));
  const named = wanted.flatMap(([group, file]) => {
    const directory = group === "cpu" || group === "memory" || group === "pids" ? groups[group] : undefined;
    return directory === undefined || file === undefined ? [] : [{ file, path: join(directory, file) }];
  });
  const contents = await readFilesBounded(
    named.map(({ path }) => path),
    maxFileBytes,
  );
  const texts = new Map(named.map(({ file }, index) => [file, contents[index]?.toString("latin1") ?? ""]));
  return parseUsage((file) => texts.get(file) ?? "");
}

const legacyMemoryFiles = ["memory/memory.usage_in_bytes", "memory/memory.stat"] as const;
const unifiedMemoryFiles = [
  "memory/memory.current",
  "memory/memory.stat",
  "memory/memory.max",
  "memory/memory.swap.current",
  "memory/memory.swap.max",
] as const;

/** `textOf` answers "" for a file that is not there; whichever of v1's and v2's names is there decides. */
export function parseUsage(textOf: (file: string) => string): ContainerUsage | undefined {
  const cpuUsageNs = number(textOf("cpuacct.usage")) ?? scaled(flat(textOf("cpu.stat")).get("usage_usec"), 1000n);
  const memory = textOf("memory.current") === "" ? legacyMemory(textOf) : unifiedMemory(textOf);
  if (cpuUsageNs === undefined || memory === undefined) return undefined;
  return { cpuUsageNs, ...memory, taskCount: number(textOf("pids.current")) };
}

function legacyMemory(textOf: (file: string) => string): Pick<ContainerUsage, "memory" | "swap"> | undefined {
  const usageBytes = number(textOf("memory.usage_in_bytes"));
  if (usageBytes === undefined) return undefined;
  const stat = flat(textOf("memory.stat"));
  const workingSetBytes = less(usageBytes, stat.get("total_inactive_file"));
  const limit = bounded(stat.get("hierarchical_memory_limit"));
  const swapUsage = stat.get("total_swap");
  const bothLimit = bounded(stat.get("hierarchical_memsw_limit"));
  const swapLimit = bothLimit === undefined || limit === undefined ? undefined : less(bothLimit, limit);
  return {
    memory: {
      usageBytes,
      workingSetBytes,
      rssBytes: stat.get("total_rss") ?? 0n,
      pageFaults: stat.get("total_pgfault") ?? 0n,
      majorPageFaults: stat.get("total_pgmajfault") ?? 0n,
      availableBytes: limit === undefined ? undefined : less(limit, workingSetBytes),
    },
    swap:
      swapUsage === undefined
        ? undefined
        : { usageBytes: swapUsage, availableBytes: swapLimit === undefined ? undefined : less(swapLimit, swapUsage) },
  };
}

function unifiedMemory(textOf: (file: string) => string): Pick<ContainerUsage, "memory" | "swap"> | undefined {
  const usageBytes = number(textOf("memory.current"));
  if (usageBytes === undefined) return undefined;
  const stat = flat(textOf("memory.stat"));
  const workingSetBytes = less(usageBytes, stat.get("inactive_file"));
  const limit = number(textOf("memory.max")); // "max" reads as none
  const swapUsage = number(textOf("memory.swap.current"));
  const swapLimit = number(textOf("memory.swap.max"));
  return {
    memory: {
      usageBytes,
      workingSetBytes,
      rssBytes: stat.get("anon") ?? 0n,
      pageFaults: stat.get("pgfault") ?? 0n,
      majorPageFaults: stat.get("pgmajfault") ?? 0n,
      availableBytes: limit === undefined ? undefined : less(limit, workingSetBytes),
    },
    swap:
      swapUsage === undefined
        ? undefined
        : { usageBytes: swapUsage, availableBytes: swapLimit === undefined ? undefined : less(swapLimit, swapUsage) },
  };
}

/** A file of `name value` lines. */
function flat(text: string): ReadonlyMap<string, bigint> {
  const values = new Map<string, bigint>();
  for (const line of text.split("\n")) {
    const [name, value] = line.split(" ");
    const count = number(value ?? "");
    if (name !== undefined && count !== undefined) values.set(name, count);
  }
  return values;
}

function number(text: string): bigint | undefined {
  const digits = text.trim();
  return /^\d{1,20}$/.test(digits) ? BigInt(digits) : undefined;
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
