import type { Config } from "../config.ts";
import type { Finding } from "./finding.ts";
import type { Machine } from "./machine.ts";

/** What pods cannot do without, by number. @see https://man7.org/linux/man-pages/man7/capabilities.7.html */
const neededCapabilities: Readonly<Record<string, bigint>> = {
  CAP_CHOWN: 0n,
  CAP_DAC_OVERRIDE: 1n,
  CAP_FOWNER: 3n,
  CAP_KILL: 5n,
  CAP_SETGID: 6n,
  CAP_SETUID: 7n,
  CAP_SETPCAP: 8n,
  CAP_NET_ADMIN: 12n,
  CAP_SYS_CHROOT: 18n,
  CAP_SYS_ADMIN: 21n,
  CAP_MKNOD: 27n,
  CAP_SETFCAP: 31n,
};
const sysResource = 24n;

/** Who we are, and what the kernel lets us do. */
export async function checkRights(machine: Machine): Promise<Finding[]> {
  const held = await machine.capabilities();
  const missing = Object.entries(neededCapabilities).flatMap(([name, bit]) => ((held >> bit) & 1n ? [] : [name]));
  const findings: Finding[] = [];
  if (machine.userId !== 0) {
    findings.push({ level: "fail", subject: "user", text: `id ${machine.userId} is not root`, cure: "run as root" });
  }
  findings.push(
    missing.length > 0
      ? { level: "fail", subject: "capabilities", text: `missing: ${missing.join(", ")}` }
      : { level: "ok", subject: "capabilities", text: "all that pods need" },
  );
  if (!((held >> sysResource) & 1n)) {
    const text =
      "CAP_SYS_RESOURCE is missing: oom_score_adj cannot go below our own and is clamped, rlimits cannot be raised";
    findings.push({ level: "warn", subject: "capabilities", text });
  }
  return findings;
}

const overlayMagic = 0x794c_7630;

/** Where container file systems come from. */
export async function checkOverlay(machine: Machine, config: Config): Promise<Finding[]> {
  const subject = "overlayfs";
  const fileSystems = (await machine.readText("/proc/filesystems")) ?? "";
  if (!/\boverlay$/m.test(fileSystems)) {
    return [{ level: "fail", subject, text: "the kernel does not offer it", cure: "modprobe overlay" }];
  }
  if ((await machine.fileSystemOf(config.root)) === overlayMagic) {
    const text = `root "${config.root}" lies on an overlay itself, which cannot hold another's upper layer`;
    return [{ level: "fail", subject, text, cure: "set root to a directory on a disk" }];
  }
  return [{ level: "ok", subject, text: "offered by the kernel" }];
}

const neededControllers = ["cpu", "cpuset", "memory", "pids"];

/**
 * Debian 12's crun 1.8.1 takes a hybrid layout for a broken v2 as long as any controller is left to the v2 tree, and
 * refuses every container.
 */
async function checkLeftToUnified(machine: Machine, mountPoint: string): Promise<Finding[]> {
  const left = ((await machine.readText(`${mountPoint}/cgroup.controllers`)) ?? "").split(/\s+/).filter(Boolean);
  if (left.length === 0) return [];
  const cure = left
    .map((name) => `mkdir -p /sys/fs/cgroup/${name} && mount -t cgroup -o ${name} cgroup /sys/fs/cgroup/${name}`)
    .join("\n");
  const text = `hybrid, and not mounted on v1: ${left.join(", ")}; crun 1.8.1 refuses to run containers here`;
  return [{ level: "fail", subject: "cgroups", text, cure }];
}

function missingFinding(layout: string, missing: readonly string[]): Finding[] {
  if (missing.length === 0) return [];
  return [{ level: "warn", subject: "cgroups", text: `${layout}, without: ${missing.join(", ")}; their limits fail` }];
}

/** How limits are enforced. */
export async function checkCgroups(machine: Machine): Promise<Finding[]> {
  const layout = await machine.cgroupLayout();
  const mounts = await machine.mounts();
  if (layout === "v2") {
    const offered = ((await machine.readText("/sys/fs/cgroup/cgroup.controllers")) ?? "").split(/\s+/);
    const missing = missingFinding(
      layout,
      neededControllers.filter((name) => !offered.includes(name)),
    );
    return missing.length > 0 ? missing : [{ level: "ok", subject: "cgroups", text: layout }];
  }
  const mounted = new Set(mounts.filter((mount) => mount.fsType === "cgroup").flatMap((mount) => mount.superOptions));
  const unified = mounts.find((mount) => mount.fsType === "cgroup2")?.mountPoint;
  const problems = [
    ...missingFinding(
      layout,
      neededControllers.filter((name) => !mounted.has(name)),
    ),
    ...(unified === undefined ? [] : await checkLeftToUnified(machine, unified)),
  ];
  return problems.length > 0 ? problems : [{ level: "ok", subject: "cgroups", text: layout }];
}

/** Whether system calls can be filtered. */
export async function checkSeccomp(machine: Machine): Promise<Finding[]> {
  const actions = await machine.readText("/proc/sys/kernel/seccomp/actions_avail");
  const subject = "seccomp";
  if (actions?.includes("errno")) return [{ level: "ok", subject, text: "filters are offered by the kernel" }];
  return [{ level: "warn", subject, text: "not offered by the kernel; containers run without filters" }];
}

/** Whether containers that name no AppArmor profile get one. */
export async function checkApparmor(machine: Machine): Promise<Finding[]> {
  const enabled = (await machine.readText("/sys/module/apparmor/parameters/enabled")) ?? "";
  const subject = "apparmor";
  if (!enabled.startsWith("Y")) return [{ level: "ok", subject, text: "not in this kernel; no profiles are applied" }];
  const parser = await machine.findProgram("apparmor_parser");
  if (parser !== undefined) return [{ level: "ok", subject, text: `${parser} loads the default profile` }];
  const text = "apparmor_parser is not there; containers that name no profile run without one";
  return [{ level: "warn", subject, text, cure: "apt-get install apparmor" }];
}
