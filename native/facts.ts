import { readFile, stat, statfs } from "node:fs/promises";

/** Sets of capabilities as the kernel numbers them: bit N is capability N. */
export interface CapabilitySets {
  readonly effective: bigint;
  readonly bounding: bigint;
}

/** The capabilities that this process holds. @see https://man7.org/linux/man-pages/man7/capabilities.7.html */
export async function kernelCapabilities(): Promise<CapabilitySets> {
  const status = await readFile("/proc/self/status", "utf8");
  const read = (name: string): bigint => {
    const digits = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status)?.[1];
    return digits === undefined ? 0n : BigInt(`0x${digits}`);
  };
  return { effective: read("CapEff"), bounding: read("CapBnd") };
}

/** How the machine's cgroups are mounted; `hybrid` is v1 with an empty v2 tree at `/sys/fs/cgroup/unified`. */
export type CgroupLayout = "v1" | "hybrid" | "v2";

const cgroup2Magic = 0x6367_7270;

/** Looks at /sys/fs/cgroup. */
export async function cgroupLayout(): Promise<CgroupLayout> {
  if ((await statfs("/sys/fs/cgroup")).type === cgroup2Magic) return "v2";
  try {
    await stat("/sys/fs/cgroup/unified/cgroup.procs");
    return "hybrid";
  } catch {
    return "v1";
  }
}
