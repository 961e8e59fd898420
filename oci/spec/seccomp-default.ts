import type { OciSeccomp, OciSyscallArgument, OciSyscallRule } from "./oci-types.ts";
import { allowedFamilies, deniedFamilies, gatedFamilies } from "./seccomp-table.ts";

/** Architectures whose numbers a filter must know, by their kernel names. */
export type SeccompArchitecture = "x86_64" | "aarch64";

const eperm = 1;
const enosys = 38;
const afVsock = 40;

/**
 * With the 32-bit way into the same kernel, for 32-bit images. x32 has no images, is off in distributions' kernels and
 * would make building the filter half as long again: left out, its calls kill the process that makes them.
 */
const libseccompNames = {
  x86_64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
  aarch64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
} as const satisfies Record<SeccompArchitecture, readonly string[]>;

/** CLONE_NEW… of mount, cgroup, uts, ipc, user, pid and network namespaces. */
const cloneNamespaceFlags = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000];
/** In clone this bit is part of the exit signal; only unshare and clone3 know it as CLONE_NEWTIME. */
const unshareNamespaceFlags = [...cloneNamespaceFlags, 0x80];

/** PER_LINUX and PER_LINUX32, each also without address randomisation's UNAME26 variant, and "tell me" (0xffffffff). */
const allowedPersonalities = [0x0, 0x8, 0x20000, 0x20008, 0xffffffff];

export interface SeccompTarget {
  readonly architecture: SeccompArchitecture;
  /** The container's bounding set. */
  readonly capabilities: readonly string[];
}

/** How libseccomp calls an architecture, with its 32-bit kin. */
export function seccompArchitectures(architecture: SeccompArchitecture): readonly string[] {
  return libseccompNames[architecture];
}

/**
 * The profile that RuntimeDefault means. Calls that ordinary software makes are allowed, the ones that need a
 * capability when the container has it; known ones beyond that answer EPERM; unknown ones ENOSYS, as on a kernel
 * without them. The same target always gives the same bytes, which runtimes use to find a filter built before.
 */
export function defaultSeccompProfile(target: SeccompTarget): OciSeccomp {
  const held = new Set(target.capabilities);
  const open = gatedFamilies.filter(({ anyOf }) => anyOf.some((name) => held.has(name)));
  const shut = gatedFamilies.filter((family) => !open.includes(family));
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: enosys,
    architectures: seccompArchitectures(target.architecture),
    syscalls: [
      allow([...allowedFamilies, ...open].flatMap(({ names }) => names)),
      refuse([...shut, ...deniedFamilies].flatMap(({ names }) => names)),
      ...namespaceRules(held.has("CAP_SYS_ADMIN")),
      allow(["socket"], [{ index: 0, value: afVsock, op: "SCMP_CMP_NE" }]),
      refuse(["socket"], [{ index: 0, value: afVsock, op: "SCMP_CMP_EQ" }]),
      ...allowedPersonalities.map((value) => allow(["personality"], [{ index: 0, value, op: "SCMP_CMP_EQ" }])),
    ],
  };
}

function namespaceRules(mayMakeNamespaces: boolean): readonly OciSyscallRule[] {
  if (mayMakeNamespaces) return [allow(["clone", "clone3", "unshare"])];
  return [...flagRules("clone", cloneNamespaceFlags), ...flagRules("unshare", unshareNamespaceFlags)];
}

// A rule can ask for "all of these bits are 0" but not for "any is 1": hence one EPERM rule for each bit.
function flagRules(name: string, flags: readonly number[]): readonly OciSyscallRule[] {
  const all = flags.reduce((mask, flag) => mask + flag, 0);
  return [
    allow([name], [{ index: 0, value: all, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }]),
    ...flags.map((flag) => refuse([name], [{ index: 0, value: flag, valueTwo: flag, op: "SCMP_CMP_MASKED_EQ" }])),
  ];
}

function allow(names: readonly string[], args?: readonly OciSyscallArgument[]): OciSyscallRule {
  return { names: [...names].sort(), action: "SCMP_ACT_ALLOW", ...(args ? { args } : {}) };
}

function refuse(names: readonly string[], args?: readonly OciSyscallArgument[]): OciSyscallRule {
  return { names: [...names].sort(), action: "SCMP_ACT_ERRNO", errnoRet: eperm, ...(args ? { args } : {}) };
}
