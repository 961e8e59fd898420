import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import { readFilesBounded } from "../../native/index.ts";
import type { OciResources } from "../spec/oci-types.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import type { RuntimeHost } from "./host.ts";
import { invokeRuntime } from "./invocation.ts";
import { withSwapLimitOfItsOwn } from "./swap-limit.ts";

/** Limits as the kernel has them, by file: what an update that fails half-way is put back to. */
interface Limit {
  readonly path: string;
  readonly text: string;
}

const maxLimitBytes = 4096;
/** Every file that an update may write; v1's are in its controllers' directories, v2's all in one. */
const legacyFiles: readonly (readonly [controller: string, file: string])[] = [
  ["memory", "memory.limit_in_bytes"],
  ["memory", "memory.memsw.limit_in_bytes"],
  ["cpu", "cpu.shares"],
  ["cpu", "cpu.cfs_period_us"],
  ["cpu", "cpu.cfs_quota_us"],
  ["cpuset", "cpuset.cpus"],
  ["cpuset", "cpuset.mems"],
];
const unifiedFiles = ["memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "cpuset.cpus", "cpuset.mems"] as const;

export async function updateResources(
  host: RuntimeHost,
  signal: AbortSignal,
  id: string,
  resources: OciResources,
): Promise<void> {
  const state = await host.states.load(id);
  if (!state) throw new CriError(Code.FailedPrecondition, `container "${id}" is not created`);
  const before = await readLimits(state.cgroups, resources);
  try {
    const lifted = await liftQuota(host, state.cgroups, withSwapLimitOfItsOwn(host, resources));
    const wanted = await raiseSwap(state.cgroups, lifted);
    await invokeRuntime(host.config, signal, {
      args: ["update", "--resources", "-", id],
      input: JSON.stringify(wanted),
      failure: { what: `cannot update the resources of container "${id}"` },
    });
  } catch (thrown) {
    await restoreLimits(before);
    throw asBadValue(thrown);
  }
}

/** crun 1.8.1 writes "no quota" as a number out of range, so that value is written here, unless systemd must know of it. */
async function liftQuota(host: RuntimeHost, cgroups: CgroupPaths, resources: OciResources): Promise<OciResources> {
  const isLifted = resources.cpu?.quota !== undefined && resources.cpu.quota < 0;
  if (!isLifted || host.config.cgroupDriver === "systemd") return resources;
  const { quota: _quota, ...cpu } = resources.cpu ?? {};
  const legacy = cgroups.controllers["cpu"];
  if (legacy !== undefined) await writeLimit({ path: join(legacy, "cpu.cfs_quota_us"), text: "-1" });
  else if (cgroups.unified !== undefined) await writeLimit({ path: join(cgroups.unified, "cpu.max"), text: "max" });
  return { ...resources, cpu };
}

/** A limit above v1's memory+swap limit is refused by the kernel: unless told otherwise the two go up together. */
async function raiseSwap(cgroups: CgroupPaths, resources: OciResources): Promise<OciResources> {
  const { memory } = cgroups.controllers;
  const { limit, swap } = resources.memory ?? {};
  if (memory === undefined || limit === undefined || limit <= 0 || swap !== undefined) return resources;
  const [both] = await readFilesBounded([join(memory, "memory.memsw.limit_in_bytes")], maxLimitBytes);
  if (!both || Number(both.toString("latin1")) >= limit) return resources;
  return { ...resources, memory: { limit, swap: limit } };
}

async function readLimits(cgroups: CgroupPaths, resources: OciResources): Promise<readonly Limit[]> {
  const paths: string[] = [];
  for (const [controller, file] of legacyFiles) {
    const directory = cgroups.controllers[controller];
    if (directory !== undefined) paths.push(join(directory, file));
  }
  const { unified } = cgroups;
  if (unified !== undefined) {
    const named = Object.keys(resources.unified ?? {}).filter((name) => /^[a-z0-9_.]+$/i.test(name));
    for (const file of new Set([...unifiedFiles, ...named])) paths.push(join(unified, file));
  }
  const contents = await readFilesBounded(paths, maxLimitBytes);
  return paths.flatMap((path, index) => {
    const text = contents[index]?.toString("latin1").trim();
    return text === undefined ? [] : [{ path, text }];
  });
}

/** v1 wants memory and memory+swap in an order that depends on their values: the second pass writes what the first could not. */
async function restoreLimits(limits: readonly Limit[]): Promise<void> {
  for (let pass = 0; pass < 2; pass += 1) {
    const contents = await readFilesBounded(
      limits.map(({ path }) => path),
      maxLimitBytes,
    );
    for (const [index, limit] of limits.entries()) {
      if (contents[index]?.toString("latin1").trim() === limit.text) continue;
      await writeLimit(limit).catch(() => undefined); // the caller hears why the update failed, which is why we are here
    }
  }
}

async function writeLimit({ path, text }: Limit): Promise<void> {
  await writeFile(path, text, { flag: "r+" });
}

/** What the kernel refuses in a limit is the caller's value; crun and runc pass its words on. */
function asBadValue(thrown: unknown): unknown {
  if (!(thrown instanceof CriError) || thrown.code !== Code.Internal) return thrown;
  if (
    !/invalid argument|out of range|unable to set memory limit|resource busy|invalid configuration/i.test(
      thrown.message,
    )
  )
    return thrown;
  return new CriError(Code.InvalidArgument, thrown.message, { cause: thrown });
}
