import { readdir, readFile } from "node:fs/promises";
import { cgroupLayout, kernelCapabilities } from "../native/index.ts";
import { capabilityNames, readSelinuxDefaults } from "../oci/index.ts";
import type { HostFacts } from "../oci/index.ts";
import { exists } from "./layout.ts";

/** The lowest value there is; only CAP_SYS_RESOURCE may go below the daemon's own. */
const lowestOomScoreAdj = -1000;

/**
 * What the kernel offers and what this daemon itself holds, which no container can exceed. Read once, at start.
 *
 * @param apparmor What `loadApparmorProfile` found.
 */
export async function readHostFacts(apparmor: HostFacts["apparmor"]): Promise<HostFacts> {
  const [{ effective, bounding }, layout] = await Promise.all([kernelCapabilities(), cgroupLayout()]);
  const capabilities = capabilityNames(effective & bounding);
  const selinux = await readSelinuxDefaults();
  return {
    capabilities,
    oomScoreAdjMin: capabilities.includes("CAP_SYS_RESOURCE")
      ? lowestOomScoreAdj
      : Number(await readText("/proc/self/oom_score_adj")),
    seccompSupported: await exists("/proc/sys/kernel/seccomp/actions_avail"),
    cgroupLayout: layout,
    swapAccounting: layout === "v2" || (await exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")),
    hugepageSizes: await readHugepageSizes(layout),
    showsMessageQueues: await exists("/dev/mqueue"),
    ...(selinux ? { selinux } : {}),
    ...(apparmor ? { apparmor } : {}),
  };
}

/** Page sizes as the hugetlb controller spells them; none where it is not mounted. */
async function readHugepageSizes(layout: HostFacts["cgroupLayout"]): Promise<readonly string[]> {
  const hasController =
    layout === "v2"
      ? (await readText("/sys/fs/cgroup/cgroup.controllers")).split(/\s/).includes("hugetlb")
      : await exists("/sys/fs/cgroup/hugetlb/cgroup.procs");
  if (!hasController || !(await exists("/sys/kernel/mm/hugepages"))) return [];
  const directories = await readdir("/sys/kernel/mm/hugepages");
  return directories.flatMap((name) => {
    const kilobytes = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1]);
    return Number.isNaN(kilobytes) ? [] : [spellPageSize(kilobytes)];
  });
}

function spellPageSize(kilobytes: number): string {
  if (kilobytes % (1024 * 1024) === 0) return `${kilobytes / (1024 * 1024)}GB`;
  return kilobytes % 1024 === 0 ? `${kilobytes / 1024}MB` : `${kilobytes}KB`;
}

async function readText(path: string): Promise<string> {
  return (await exists(path)) ? await readFile(path, "utf8") : "";
}
