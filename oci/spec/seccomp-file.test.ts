import { createRandom } from "../../cri-api/testing.ts";
import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { parseSeccompProfile, resolveSeccompProfile } from "./seccomp-file.ts";
import type { SeccompProfile } from "./seccomp-file.ts";

const parse = (document: unknown): SeccompProfile => parseSeccompProfile(Buffer.from(JSON.stringify(document)));
const target = { architecture: "x86_64", capabilities: ["CAP_SYS_ADMIN"] } as const;
const resolve = (document: unknown, to: Parameters<typeof resolveSeccompProfile>[1] = target) =>
  resolveSeccompProfile(parse(document), to);
const rule = { names: ["mkdir"], action: "SCMP_ACT_ERRNO" };

describe("parseSeccompProfile", () => {
  test("reads the OCI form", () => {
    const document = {
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrnoRet: 38,
      architectures: ["SCMP_ARCH_X86_64"],
      flags: ["SECCOMP_FILTER_FLAG_LOG"],
      syscalls: [
        { names: ["read", "write"], action: "SCMP_ACT_ALLOW" },
        {
          names: ["clone"],
          action: "SCMP_ACT_ALLOW",
          args: [{ index: 0, value: 5, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
        },
      ],
    };
    expect(resolve(document)).toEqual(document);
  });

  test("reads the form of Docker and containers-common", () => {
    const document = {
      defaultAction: "SCMP_ACT_ERRNO",
      defaultErrno: "ENOSYS",
      archMap: [
        { architecture: "SCMP_ARCH_X86_64", subArchitectures: ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] },
        { architecture: "SCMP_ARCH_AARCH64", subArchitectures: null },
      ],
      syscalls: [
        { name: "read", action: "SCMP_ACT_ALLOW", args: null, comment: "", includes: {}, excludes: {} },
        { names: ["mount"], action: "SCMP_ACT_ALLOW", args: [], includes: { caps: ["CAP_SYS_ADMIN"] } },
        { names: ["ptrace"], action: "SCMP_ACT_ALLOW", includes: { caps: ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"] } },
        { names: ["clone"], action: "SCMP_ACT_ALLOW", excludes: { caps: ["CAP_SYS_ADMIN"], arches: ["s390x"] } },
        { names: ["arch_prctl"], action: "SCMP_ACT_ALLOW", includes: { arches: ["amd64", "x32"], minKernel: "4.8" } },
        { names: ["arm_fadvise64_64"], action: "SCMP_ACT_ALLOW", includes: { arches: ["arm", "arm64"] } },
        { names: ["sync_file_range2"], action: "SCMP_ACT_ALLOW", excludes: { arches: ["amd64"] } },
      ],
    };
    const onX86 = resolve(document);
    expect(onX86.architectures).toEqual(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    expect(onX86.syscalls.flatMap(({ names }) => names)).toEqual(["read", "mount", "arch_prctl"]);
    const onArm = resolve(document, { architecture: "aarch64", capabilities: [] });
    expect(onArm.architectures).toEqual(["SCMP_ARCH_AARCH64"]);
    expect(onArm.syscalls.flatMap(({ names }) => names)).toEqual([
      "read",
      "clone",
      "arm_fadvise64_64",
      "sync_file_range2",
    ]);
  });

  test("takes the nulls that Go writes for empty lists", () => {
    expect(resolve({ defaultAction: "SCMP_ACT_ALLOW", architectures: null, archMap: null, syscalls: null })).toEqual({
      defaultAction: "SCMP_ACT_ALLOW",
      syscalls: [],
    });
  });

  test.each([
    ["an unknown action", { defaultAction: "SCMP_ACT_MAYBE" }],
    ["no default action", { syscalls: [] }],
    ["a listener", { defaultAction: "SCMP_ACT_ALLOW", listenerPath: "/run/agent.sock" }],
    ["an action that needs one", { defaultAction: "SCMP_ACT_NOTIFY" }],
    ["an unknown flag", { defaultAction: "SCMP_ACT_ALLOW", flags: ["SECCOMP_FILTER_FLAG_NEW_LISTENER"] }],
    ["a rule without names", { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ action: "SCMP_ACT_LOG" }] }],
    ["both name and names", { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ ...rule, name: "rmdir" }] }],
    ["a name that is none", { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ ...rule, names: ["mk dir"] }] }],
    ["an argument that is not there", withArgument({ index: 6, value: 0, op: "SCMP_CMP_EQ" })],
    ["a value that JSON did not carry exactly", withArgument({ index: 0, value: 2 ** 60, op: "SCMP_CMP_EQ" })],
    ["a negative value", withArgument({ index: 0, value: -1, op: "SCMP_CMP_EQ" })],
    ["an unknown operator", withArgument({ index: 0, value: 1, op: "==" })],
    ["an errno that is none", { defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 5000 }],
    ["two lists of architectures", bothLists()],
    ["too many rules", { defaultAction: "SCMP_ACT_ALLOW", syscalls: Array.from({ length: 5000 }, () => rule) }],
    ["a list", []],
    ["a null", null],
  ])("refuses %s", (_, document) => {
    expect(() => parse(document)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument, message: expect.stringMatching(/^seccomp profile/) }),
    );
  });

  test("refuses what is not JSON, and more than a profile can be", () => {
    expect(() => parseSeccompProfile(Buffer.from("{"))).toThrow(/not JSON/);
    expect(() => parseSeccompProfile(Buffer.alloc(0))).toThrow(/not JSON/);
    expect(() => parseSeccompProfile(Buffer.alloc(2 ** 20 + 1, " "))).toThrow(/larger/);
  });

  test("says where the file is wrong without repeating it", () => {
    const hostile = { defaultAction: "SCMP_ACT_ALLOW", syscalls: [rule, { ...rule, action: "x".repeat(10_000) }] };
    expect(() => parse(hostile)).toThrow(/^seccomp profile: syscalls\.1\.action: .{1,200}$/);
  });

  test("never throws anything but its own error on mangled documents", () => {
    const random = createRandom(11);
    const valid = JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [withArgument({}).syscalls[0]] });
    for (let round = 0; round < 3000; round++) {
      const bytes = Buffer.from(valid);
      for (let change = 0; change < 3; change++) {
        bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
      }
      try {
        resolveSeccompProfile(parseSeccompProfile(bytes), target);
      } catch (thrown) {
        expect(thrown).toMatchObject({ name: "CriError", code: Code.InvalidArgument });
      }
    }
  });
});

function withArgument(argument: object): { defaultAction: string; syscalls: object[] } {
  return { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ ...rule, args: [argument] }] };
}

function bothLists(): object {
  return {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: ["SCMP_ARCH_X86_64"],
    archMap: [{ architecture: "SCMP_ARCH_X86_64", subArchitectures: [] }],
  };
}
