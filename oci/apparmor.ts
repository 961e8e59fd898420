import type { Logger } from "../cri-api/index.ts";
import { readFileBounded, run, which } from "../native/index.ts";
import type { HostFacts } from "./spec/input.ts";

/** The profile that RuntimeDefault means, under the name that the kernel and `aa-status` show. */
const profileName = "berth-default";
const enabledFile = "/sys/module/apparmor/parameters/enabled";
const parserPath = "/usr/sbin:/sbin:/usr/bin:/bin";
/** Half a second on a busy node; ten times that under emulation. */
const loadDeadlineMs = 60_000;

/**
 * A container may do what its capabilities and its seccomp profile leave it, except write to the kernel's files outside
 * of its own namespaces, mount, and see or signal processes beyond those under the same profile. Files that a mount
 * namespace has lost sight of count as below its root (`attach_disconnected`).
 *
 * No rule refers to a file of the host's own policy: it is the same on every distribution.
 */
export function defaultApparmorProfile(name: string): string {
  return `profile ${name} flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  # Stop signals come from the daemon and the runtimes; newer policies give these a profile of their own.
  signal (receive) peer=unconfined,
  signal (receive) peer={crun,runc,conmon,/usr/bin/crun,/usr/{bin,sbin}/runc,/usr/bin/conmon},
  signal (send, receive) peer=${name},
  ptrace (trace, read, tracedby, readby) peer=${name},

  # /proc: only what belongs to processes, and the settings of namespaces that a container may have for itself.
  deny /proc/* w,
  deny /proc/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w,
  deny /proc/sys/[^kn]** w,
  deny /proc/sys/{n[^e],ne[^t]}** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/{mem,kmem,kcore} rwklx,

  # /sys: cgroups alone may be written.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  deny mount,
}
`;
}

/**
 * Loads Berth's default profile into the kernel, in place of one that an earlier version loaded.
 *
 * @returns What a container's spec needs to know: undefined where the kernel has no AppArmor or it is off, without a
 * default profile where that cannot be loaded. Containers that name no profile then run without one, which is logged.
 */
export async function loadApparmorProfile(log: Logger): Promise<HostFacts["apparmor"]> {
  const enabled = await readFileBounded(enabledFile, 16).catch(() => undefined);
  if (!enabled?.toString("latin1").startsWith("Y")) return undefined;
  const parser = await which("apparmor_parser", parserPath);
  if (parser === undefined) {
    log.warn({}, "apparmor_parser is not there to load the default profile; containers run without one");
    return {};
  }
  const { status, stderr } = await run({
    argv: [parser, "--replace", "--skip-cache"],
    env: { PATH: parserPath },
    input: defaultApparmorProfile(profileName),
    signal: AbortSignal.timeout(loadDeadlineMs),
  });
  if (status.kind === "exited" && status.code === 0) return { defaultProfile: profileName };
  const told = stderr.toString("utf8").trim().slice(0, 1000);
  log.warn({ status, stderr: told }, "the default AppArmor profile cannot be loaded; containers run without one");
  return {};
}
