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

/** The oldest kernel with every call that cannot be done without: openat2 is from 5.6. */
const oldestKernel = [5, 6] as const;

/** Whether the kernel is new enough, and has every kind of namespace. */
export async function checkKernel(machine: Machine): Promise<Finding[]> {
  const subject = "kernel";
  const [major = 0, minor = 0] = machine.kernelRelease.split(/[.-]/).map(Number);
  if (major < oldestKernel[0] || (major === oldestKernel[0] && minor < oldestKernel[1])) {
    const text = `${machine.kernelRelease} is older than ${oldestKernel.join(".")}; no file of an image can be opened`;
    return [{ level: "fail", subject, text, cure: "boot a newer kernel" }];
  }
  const kinds = ["net", "ipc", "uts", "mnt", "pid"];
  const limits = await Promise.all(kinds.map((kind) => machine.readText(`/proc/sys/user/max_${kind}_namespaces`)));
  const missing = kinds.filter((_, index) => !(Number(limits[index]) > 0));
  if (missing.length > 0) {
    const cure = missing.map((kind) => `sysctl -w user.max_${kind}_namespaces=65536`).join("\n");
    return [{ level: "fail", subject, text: `no namespaces may be made of: ${missing.join(", ")}`, cure }];
  }
  return [{ level: "ok", subject, text: machine.kernelRelease }];
}

/** inotify instances that a node full of pods takes with ease: each has watchers of its own. */
const wantedInstances = 512;

/** Settings that let pods reach each other, and watch their files. */
export async function checkSettings(machine: Machine): Promise<Finding[]> {
  const findings: Finding[] = [];
  const instances = Number(await machine.readText("/proc/sys/fs/inotify/max_user_instances"));
  if (instances < wantedInstances) {
    const text = `fs.inotify.max_user_instances is ${instances}; on a full node watches fail with "too many open files"`;
    const cure = `sysctl -w fs.inotify.max_user_instances=8192`;
    findings.push({ level: "warn", subject: "settings", text, cure });
  }
  const bridged = await machine.readText("/proc/sys/net/bridge/bridge-nf-call-iptables");
  if (bridged?.trim() !== "1") {
    const text = "bridged traffic passes by iptables; a Service does not reach a pod on the same bridge as its caller";
    const cure = "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1";
    findings.push({ level: "warn", subject: "settings", text, cure });
  }
  return findings.length > 0 ? findings : [{ level: "ok", subject: "settings", text: "as a full node needs them" }];
}

/** Whether the configured driver is the one that this machine's init system leaves cgroups to. */
export async function checkCgroupDriver(machine: Machine, config: Config): Promise<Finding[]> {
  const subject = "cgroup driver";
  const isSystemd = (await machine.listNames("/run/systemd/system")).length > 0;
  if (config.cgroupDriver === "systemd" && !isSystemd) {
    const text = "systemd, which does not run here; no container can be made";
    return [{ level: "fail", subject, text, cure: 'set cgroup_driver = "cgroupfs", in kubelet too' }];
  }
  if (config.cgroupDriver === "cgroupfs" && isSystemd && (await machine.cgroupLayout()) === "v2") {
    const text = "cgroupfs beside systemd on v2: two writers of one tree, and systemd may move what it does not know";
    return [{ level: "warn", subject, text, cure: 'set cgroup_driver = "systemd", in kubelet too' }];
  }
  return [{ level: "ok", subject, text: config.cgroupDriver }];
}

const overlayMagic = 0x794c_7630;

/** Where container file systems come from. */
export async function checkOverlay(machine: Machine, config: Config): Promise<Finding[]> {
  const subject = "overlayfs";
  const fileSystems = (await machine.readText("/proc/filesystems")) ?? "";
  if (!/\boverlay$/m.test(fileSystems)) {
    return [{ level: "fail", subject, text: "the kernel does not offer it", cure: "modprobe overlay" }];
  }
  if ((await machine.fileSystemOf(config.root))?.type === overlayMagic) {
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

/** Whether a SELinux policy is in force, and what it knows of containers. */
export async function checkSelinux(machine: Machine): Promise<Finding[]> {
  const subject = "selinux";
  const enforce = await machine.readText("/sys/fs/selinux/enforce");
  if (enforce === undefined) return [{ level: "ok", subject, text: "not in this kernel; nothing is labelled" }];
  const policy = /^SELINUXTYPE=([\w-]+)\s*$/m.exec((await machine.readText("/etc/selinux/config")) ?? "")?.[1] ?? "";
  const contexts = await machine.readText(`/etc/selinux/${policy}/contexts/lxc_contexts`);
  if (contexts === undefined) {
    const text = `policy "${policy}" names no contexts for containers; container_t and container_file_t are taken`;
    return [
      {
        level: "warn",
        subject,
        text,
        cure: "install a policy with containers: container-selinux, selinux-policy-default",
      },
    ];
  }
  const isEnforcing = enforce.startsWith("1");
  const mode = isEnforcing ? "enforces" : "is permissive: it tells what it would deny, and denies nothing of";
  return [{ level: "ok", subject, text: `the kernel ${mode} policy "${policy}", which knows containers` }];
}
