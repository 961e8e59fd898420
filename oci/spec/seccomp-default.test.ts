import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { knownCapabilities } from "./capabilities.ts";
import type { OciSeccomp, OciSyscallRule } from "./oci-types.ts";
import { defaultSeccompProfile } from "./seccomp-default.ts";
import { absentFamilies, allowedFamilies, deniedFamilies, gatedFamilies, inspectedFamilies } from "./seccomp-table.ts";

// Every name in the tables of Linux 6.18 for x86-64, i386, arm64 and arm.
const kernelCalls = readFileSync(join(import.meta.dirname, "testdata/kernel-syscalls.txt"), "utf8")
  .trim()
  .split("\n");
const families = [allowedFamilies, gatedFamilies, deniedFamilies, absentFamilies, inspectedFamilies].flat();

/** What the filter answers, by the first rule that fits: no two rules of ours fit one call with different answers. */
function answer(profile: OciSeccomp, name: string, argument = 0): string {
  const rule = profile.syscalls.find((candidate) => candidate.names.includes(name) && fits(candidate, argument));
  if (!rule) return `errno ${profile.defaultErrnoRet}`;
  return rule.action === "SCMP_ACT_ALLOW" ? "allowed" : `errno ${rule.errnoRet}`;
}

function fits({ args = [] }: OciSyscallRule, argument: number): boolean {
  return args.every(({ value, valueTwo, op }) => {
    if (op === "SCMP_CMP_MASKED_EQ") return (BigInt(argument) & BigInt(value)) === BigInt(valueTwo ?? 0);
    return op === "SCMP_CMP_NE" ? argument !== value : argument === value;
  });
}

const profileFor = (...capabilities: string[]): OciSeccomp =>
  defaultSeccompProfile({ architecture: "x86_64", capabilities });

describe("the table", () => {
  test("puts every call of the kernel in exactly one family", () => {
    const places = new Map<string, number>();
    for (const { names } of families) for (const name of names) places.set(name, (places.get(name) ?? 0) + 1);
    expect([...places].filter(([, count]) => count > 1)).toEqual([]);
    expect(kernelCalls.filter((name) => !places.has(name))).toEqual([]);
  });

  test("names only capabilities that exist", () => {
    for (const { anyOf } of gatedFamilies) expect(knownCapabilities).toEqual(expect.arrayContaining([...anyOf]));
  });

  test("gives every family a reason", () => {
    for (const { reason, names } of families) {
      expect(reason.length).toBeGreaterThan(5);
      for (const name of names) expect(name).toMatch(/^[a-z0-9_]+$/);
    }
  });
});

describe("defaultSeccompProfile", () => {
  test.each(["read", "execve", "futex", "epoll_pwait2", "statx", "rseq", "close_range", "getrandom", "fchmodat2"])(
    "allows %s",
    (name) => {
      expect(answer(profileFor(), name)).toBe("allowed");
    },
  );

  test("answers ENOSYS for clone3 and for calls it does not know, so that libc falls back", () => {
    expect(answer(profileFor(), "clone3")).toBe("errno 38");
    expect(answer(profileFor(), "a_call_of_the_future")).toBe("errno 38");
    expect(answer(profileFor("CAP_SYS_ADMIN"), "clone3")).toBe("allowed");
  });

  test.each([
    ["CLONE_NEWTIME", 0x80, ["unshare"]],
    ["CLONE_NEWNS", 0x20000, ["clone", "unshare"]],
    ["CLONE_NEWCGROUP", 0x2000000, ["clone", "unshare"]],
    ["CLONE_NEWUTS", 0x4000000, ["clone", "unshare"]],
    ["CLONE_NEWIPC", 0x8000000, ["clone", "unshare"]],
    ["CLONE_NEWUSER", 0x10000000, ["clone", "unshare"]],
    ["CLONE_NEWPID", 0x20000000, ["clone", "unshare"]],
    ["CLONE_NEWNET", 0x40000000, ["clone", "unshare"]],
  ])("lets %s through for CAP_SYS_ADMIN only", (_, flag, calls) => {
    for (const call of calls) {
      for (const argument of [flag, flag + 0x400, flag + 0x11]) {
        expect(answer(profileFor(), call, argument)).toBe("errno 1");
        expect(answer(profileFor("CAP_SYS_ADMIN"), call, argument)).toBe("allowed");
      }
    }
  });

  test("lets threads and forks through", () => {
    const thread = 0x3d0f00; // what glibc gives pthread_create
    expect(answer(profileFor(), "clone", thread)).toBe("allowed");
    expect(answer(profileFor(), "clone", 0x11)).toBe("allowed");
    expect(answer(profileFor(), "unshare", 0x600)).toBe("allowed");
  });

  test.each(gatedFamilies.flatMap(({ anyOf, names }) => anyOf.map((capability) => [capability, names] as const)))(
    "gives %s its calls: %s",
    (capability, names) => {
      for (const name of names) {
        expect(answer(profileFor(), name)).toBe("errno 1");
        expect(answer(profileFor(capability), name)).toBe("allowed");
      }
    },
  );

  test("forbids keyrings, io_uring, userfaultfd and kexec whatever the container holds", () => {
    const all = profileFor(...knownCapabilities);
    for (const name of ["keyctl", "add_key", "io_uring_setup", "userfaultfd", "kexec_load", "swapon"]) {
      expect(answer(all, name)).toBe("errno 1");
    }
  });

  test("looks at the family of a socket and at the domain of a personality", () => {
    for (const family of [1, 2, 10, 16, 17]) expect(answer(profileFor(), "socket", family)).toBe("allowed");
    expect(answer(profileFor(), "socket", 40)).toBe("errno 1");
    expect(answer(profileFor(), "personality", 0xffffffff)).toBe("allowed");
    expect(answer(profileFor(), "personality", 0x40000)).toBe("errno 38");
  });

  test("covers the 32-bit ways into the same kernel", () => {
    expect(profileFor().architectures).toEqual(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    expect(defaultSeccompProfile({ architecture: "aarch64", capabilities: [] }).architectures).toEqual([
      "SCMP_ARCH_AARCH64",
      "SCMP_ARCH_ARM",
    ]);
  });

  test("gives the same bytes for the same target, whatever the order of capabilities", () => {
    const one = JSON.stringify(profileFor("CAP_BPF", "CAP_SYS_ADMIN"));
    expect(JSON.stringify(profileFor("CAP_SYS_ADMIN", "CAP_BPF"))).toBe(one);
  });

  test("has no call both allowed and refused without a condition", () => {
    for (const capabilities of [[], ["CAP_SYS_ADMIN"], knownCapabilities]) {
      const plain = profileFor(...capabilities).syscalls.filter(({ args }) => !args);
      const names = plain.flatMap((rule) => rule.names);
      expect(new Set(names).size).toBe(names.length);
    }
  });
});
