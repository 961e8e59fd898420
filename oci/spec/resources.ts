import type { cri } from "../../cri-api/index.ts";
import type { CgroupLayout, HostFacts } from "./input.ts";
import { invalid, quote } from "./invalid.ts";
import type { OciResources } from "./oci-types.ts";
import { assertNoControlCharacters } from "./text.ts";

/** The host's abilities that decide which limits can be written. */
export type ResourceFacts = Pick<HostFacts, "swapAccounting" | "hugepageSizes">;

/** The kernel clamps shares to these itself on v1; on v2 the runtimes turn them into a weight without looking. */
const minShares = 2n;
const maxShares = 262_144n;
/** Past this a JSON number is no longer exact. 8 PiB is no limit on any machine, so larger ones are cut to it. */
const maxBytes = BigInt(Number.MAX_SAFE_INTEGER) & ~4095n;
const v2Controllers = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"];

/**
 * CRI limits in the runtime's words. 0 and "" are "not set" and left out. A memory limit without a swap limit also
 * limits swap to it, so that swap is not a way around the limit.
 *
 * @throws {CriError} `InvalidArgument` for values that no cgroup takes.
 */
export function toOciResources(
  resources: cri.LinuxContainerResources,
  layout: CgroupLayout,
  facts: ResourceFacts = {},
): OciResources {
  const cpu = toCpu(resources);
  const memory = toMemory(resources, facts.swapAccounting ?? true);
  const hugepageLimits = toHugepageLimits(resources.hugepageLimits, facts.hugepageSizes);
  const unified = toUnified(resources.unified, layout);
  return {
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
    ...(Object.keys(memory).length > 0 ? { memory } : {}),
    ...(hugepageLimits.length > 0 ? { hugepageLimits } : {}),
    ...(Object.keys(unified).length > 0 ? { unified } : {}),
  };
}

function toCpu(resources: cri.LinuxContainerResources): NonNullable<OciResources["cpu"]> {
  const { cpuShares, cpuQuota, cpuPeriod, cpusetCpus, cpusetMems } = resources;
  if (cpuShares < 0n) throw invalid(`cpu_shares ${cpuShares} is negative`);
  if (cpuPeriod !== 0n && (cpuPeriod < 1000n || cpuPeriod > 1_000_000n)) {
    throw invalid(`cpu_period ${cpuPeriod} is not between 1000 and 1000000 microseconds`);
  }
  if (cpuQuota > 0n && cpuQuota < 1000n) throw invalid(`cpu_quota ${cpuQuota} is below 1000 microseconds`);
  if (cpuQuota > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid(`cpu_quota ${cpuQuota} is too large`);
  checkCpuset("cpuset_cpus", cpusetCpus);
  checkCpuset("cpuset_mems", cpusetMems);
  return {
    ...(cpuShares === 0n ? {} : { shares: Number(clamp(cpuShares, minShares, maxShares)) }),
    ...(cpuQuota === 0n ? {} : { quota: cpuQuota < 0n ? -1 : Number(cpuQuota) }),
    ...(cpuPeriod === 0n ? {} : { period: Number(cpuPeriod) }),
    ...(cpusetCpus === "" ? {} : { cpus: cpusetCpus }),
    ...(cpusetMems === "" ? {} : { mems: cpusetMems }),
  };
}

function checkCpuset(field: string, text: string): void {
  const isList = text.length <= 4096 && /^\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*$/.test(text);
  if (text !== "" && !isList) throw invalid(`${field} ${quote(text)} is not a list such as "0-2,7"`);
}

function toMemory(
  { memoryLimitInBytes: limit, memorySwapLimitInBytes: swap }: cri.LinuxContainerResources,
  countsSwap: boolean,
): NonNullable<OciResources["memory"]> {
  if (limit < 0n) throw invalid(`memory_limit_in_bytes ${limit} is negative`);
  if (swap < -1n) throw invalid(`memory_swap_limit_in_bytes ${swap} is below -1, which is unlimited`);
  if (swap > 0n && limit === 0n) throw invalid("memory_swap_limit_in_bytes needs memory_limit_in_bytes");
  if (swap > 0n && swap < limit) {
    throw invalid(`memory_swap_limit_in_bytes ${swap} is below memory_limit_in_bytes ${limit}: it counts both`);
  }
  const effectiveSwap = swap === 0n ? limit : swap;
  return {
    ...(limit === 0n ? {} : { limit: Number(clamp(limit, 0n, maxBytes)) }),
    ...(effectiveSwap === 0n || !countsSwap ? {} : { swap: Number(clamp(effectiveSwap, -1n, maxBytes)) }),
  };
}

// kubelet sends a limit of 0 for every page size it knows, also where the controller is missing.
function toHugepageLimits(
  limits: readonly cri.HugepageLimit[],
  sizes: readonly string[] | undefined,
): NonNullable<OciResources["hugepageLimits"]> {
  return limits.flatMap(({ pageSize, limit }) => {
    if (!/^[1-9][0-9]{0,9}(?:KB|MB|GB)$/.test(pageSize)) {
      throw invalid(`hugepage size ${quote(pageSize)} is not a size such as "2MB"`);
    }
    const isKnown = sizes === undefined || sizes.includes(pageSize);
    if (!isKnown && limit > 0n) throw invalid(`hugepages of ${pageSize} cannot be limited on this host`);
    return isKnown ? [{ pageSize, limit: Number(clamp(limit, 0n, maxBytes)) }] : [];
  });
}

/** @throws {CriError} `InvalidArgument` for a name that is no controller's file: `cgroup.*` would move or kill. */
function toUnified(unified: Readonly<Record<string, string>>, layout: CgroupLayout): Readonly<Record<string, string>> {
  const keys = Object.keys(unified);
  if (keys.length > 0 && layout !== "v2") throw invalid("unified resources need cgroup v2, which this host has not");
  for (const key of keys) {
    const [controller = ""] = key.split(".", 1);
    if (!v2Controllers.includes(controller) || !/^[a-z]+(?:\.[A-Za-z0-9_]+)+$/.test(key)) {
      throw invalid(`unified resource ${quote(key)} is not a cgroup v2 control file`);
    }
    assertNoControlCharacters(`unified resource ${quote(key)} value`, unified[key] ?? "");
  }
  return unified;
}

/**
 * The resources in force after an update, as status reports them: fields that are 0 or empty keep their value,
 * `unified` and the hugepage limits are merged key by key. `oom_score_adj` stays what it was at the start: it belongs
 * to processes that already run. A new memory limit without a swap limit keeps the swap that came on top.
 */
export function applyResourceUpdate(
  current: cri.LinuxContainerResources,
  update: cri.LinuxContainerResources,
): cri.LinuxContainerResources {
  const pages = new Map([...current.hugepageLimits, ...update.hugepageLimits].map((each) => [each.pageSize, each]));
  return {
    cpuPeriod: update.cpuPeriod || current.cpuPeriod,
    cpuQuota: update.cpuQuota || current.cpuQuota,
    cpuShares: update.cpuShares || current.cpuShares,
    memoryLimitInBytes: update.memoryLimitInBytes || current.memoryLimitInBytes,
    oomScoreAdj: current.oomScoreAdj,
    cpusetCpus: update.cpusetCpus || current.cpusetCpus,
    cpusetMems: update.cpusetMems || current.cpusetMems,
    hugepageLimits: [...pages.values()],
    unified: { ...current.unified, ...update.unified },
    memorySwapLimitInBytes: swapAfter(current, update),
  };
}

function swapAfter(current: cri.LinuxContainerResources, update: cri.LinuxContainerResources): bigint {
  if (update.memorySwapLimitInBytes !== 0n) return update.memorySwapLimitInBytes;
  const isLimited = current.memorySwapLimitInBytes > 0n;
  if (!isLimited || update.memoryLimitInBytes === 0n) return current.memorySwapLimitInBytes;
  return update.memoryLimitInBytes + (current.memorySwapLimitInBytes - current.memoryLimitInBytes);
}

/**
 * Always written: a container that inherited the daemon's own score would outlive its pod when memory runs out.
 *
 * @param min The lowest value that the kernel lets the daemon write; lower ones become this.
 * @throws {CriError} `InvalidArgument` outside -1000…1000.
 */
export function buildOomScoreAdj(requested: bigint, min: number): number {
  if (requested < -1000n || requested > 1000n) throw invalid(`oom_score_adj ${requested} is not in -1000…1000`);
  return Math.max(Number(requested), min);
}

function clamp(value: bigint, min: bigint, max: bigint): bigint {
  return value < min ? min : value > max ? max : value;
}
