import type { cri } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import { invalid, quote } from "./invalid.ts";
import type { CapabilitySets } from "./oci-types.ts";

/** In the kernel's order: the index is the bit. */
export const knownCapabilities: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
];

/** CRI-O's nine: what a service needs to bind its port and drop to its user, and nothing that forges packets or nodes. */
export const defaultCapabilities: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
];

/** Names of the bits in a mask such as `CapBnd` of /proc/self/status; bits without a name are left out. */
export function capabilityNames(mask: bigint): readonly string[] {
  return knownCapabilities.filter((_, bit) => (mask & (1n << BigInt(bit))) !== 0n);
}

type SecurityContext = Pick<cri.LinuxContainerSecurityContext, "capabilities" | "privileged">;

/**
 * The five sets. Inheritable and ambient stay empty (CVE-2022-27652, CVE-2018-1000400) but for
 * `add_ambient_capabilities`, which go to all five. Privileged is what the daemon itself holds, and no more.
 *
 * @throws {CriError} `InvalidArgument` for an unknown capability to add; `FailedPrecondition` for one that the daemon
 * does not hold and so cannot give. `ALL` is what it holds.
 */
export function buildCapabilities(context: SecurityContext | null, held: readonly string[]): CapabilitySets {
  const ambient = giveable(context?.capabilities?.addAmbientCapabilities ?? [], held);
  const base = context?.privileged ? held : addedAndDropped(context?.capabilities ?? null, held);
  const all = inKernelOrder(new Set([...base, ...ambient]));
  return { bounding: all, effective: all, permitted: all, inheritable: ambient, ambient };
}

function addedAndDropped(asked: cri.Capability | null, held: readonly string[]): readonly string[] {
  const added = (asked?.addCapabilities ?? []).map(canonicalName);
  const dropped = (asked?.dropCapabilities ?? []).map(canonicalName);
  const start = new Set(added.includes("ALL") ? held : defaultCapabilities.filter((name) => held.includes(name)));
  if (dropped.includes("ALL")) start.clear(); // ALL first, then the single names: drop ALL with add X leaves X
  const singles = added.filter((name) => name !== "ALL");
  for (const name of giveable(singles, held)) start.add(name);
  for (const name of dropped) start.delete(name);
  return [...start];
}

function giveable(names: readonly string[], held: readonly string[]): readonly string[] {
  const wanted = new Set<string>();
  for (const asked of names) {
    const name = canonicalName(asked);
    if (name === "ALL") {
      for (const each of held) wanted.add(each);
      continue;
    }
    if (!knownCapabilities.includes(name)) throw invalid(`unknown capability ${quote(asked)}`);
    if (!held.includes(name)) {
      throw new CriError(Code.FailedPrecondition, `capability ${name} cannot be given: this daemon does not hold it`);
    }
    wanted.add(name);
  }
  return inKernelOrder(wanted);
}

function canonicalName(name: string): string {
  const upper = name.toUpperCase();
  return upper === "ALL" || upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
}

function inKernelOrder(names: ReadonlySet<string>): readonly string[] {
  return knownCapabilities.filter((name) => names.has(name));
}
