import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { applyResourceUpdate, buildOomScoreAdj, toOciResources } from "./resources.ts";
import { linuxResources } from "./testing.ts";

const mib = 1024n * 1024n;

describe("toOciResources", () => {
  test("leaves out what is not set", () => {
    expect(toOciResources(linuxResources(), "v1")).toEqual({});
  });

  test("carries cpu limits, clamping shares to what the kernel takes", () => {
    const cpu = { cpuShares: 512n, cpuQuota: 50_000n, cpuPeriod: 100_000n, cpusetCpus: "0-2,7", cpusetMems: "0" };
    expect(toOciResources(linuxResources(cpu), "v2").cpu).toEqual({
      shares: 512,
      quota: 50_000,
      period: 100_000,
      cpus: "0-2,7",
      mems: "0",
    });
    expect(toOciResources(linuxResources({ cpuShares: 1n }), "v1").cpu).toEqual({ shares: 2 });
    expect(toOciResources(linuxResources({ cpuShares: 10n ** 12n }), "v2").cpu).toEqual({ shares: 262_144 });
    expect(toOciResources(linuxResources({ cpuQuota: -7n }), "v1").cpu).toEqual({ quota: -1 });
  });

  test.each([
    ["only a limit: swap is limited to it", { memoryLimitInBytes: mib }, { limit: 1_048_576, swap: 1_048_576 }],
    ["both", { memoryLimitInBytes: mib, memorySwapLimitInBytes: 2n * mib }, { limit: 1_048_576, swap: 2_097_152 }],
    ["unlimited swap", { memoryLimitInBytes: mib, memorySwapLimitInBytes: -1n }, { limit: 1_048_576, swap: -1 }],
    ["unlimited swap without a limit", { memorySwapLimitInBytes: -1n }, { swap: -1 }],
  ])("memory: %s", (_, resources, expected) => {
    expect(toOciResources(linuxResources(resources), "v2").memory).toEqual(expected);
  });

  test("does not speak of swap where the kernel does not count it", () => {
    const resources = linuxResources({ memoryLimitInBytes: mib, memorySwapLimitInBytes: 2n * mib });
    expect(toOciResources(resources, "v1", { swapAccounting: false }).memory).toEqual({ limit: 1_048_576 });
  });

  test("cuts limits beyond any machine to a number that JSON carries exactly", () => {
    const { memory } = toOciResources(linuxResources({ memoryLimitInBytes: 2n ** 63n - 1n }), "v1");
    expect(memory?.limit).toBe(9_007_199_254_736_896);
    expect(Number.isSafeInteger(memory?.limit)).toBe(true);
  });

  test("limits hugepages of the sizes there are, and drops kubelet's zeros for others", () => {
    const hugepageLimits = [
      { pageSize: "2MB", limit: 4n * mib },
      { pageSize: "1GB", limit: 0n },
    ];
    const resources = linuxResources({ hugepageLimits });
    expect(toOciResources(resources, "v1", { hugepageSizes: ["2MB"] }).hugepageLimits).toEqual([
      { pageSize: "2MB", limit: 4_194_304 },
    ]);
    expect(toOciResources(resources, "v1").hugepageLimits).toHaveLength(2);
    expect(() => toOciResources(resources, "v1", { hugepageSizes: [] })).toThrow(/cannot be limited/);
  });

  test("passes cgroup v2 control files on, and only those", () => {
    const unified = { "memory.high": "100M", "io.max": "8:0 rbps=1", "hugetlb.2MB.max": "0" };
    expect(toOciResources(linuxResources({ unified }), "v2").unified).toEqual(unified);
    expect(() => toOciResources(linuxResources({ unified }), "v1")).toThrow(/cgroup v2/);
    expect(() => toOciResources(linuxResources({ unified }), "hybrid")).toThrow(/cgroup v2/);
  });

  test.each([
    "cgroup.procs",
    "cgroup.kill",
    "memory",
    "memory/../cgroup.kill",
    "../cgroup.procs",
    "memory.",
    ".memory",
    "memory..high",
    "memory.high\n",
    "devices.allow",
    "",
    "__proto__.x",
  ])("refuses the unified key %j", (key) => {
    expect(() => toOciResources(linuxResources({ unified: { [key]: "1" } }), "v2")).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });

  test.each([
    { memoryLimitInBytes: -1n },
    { memorySwapLimitInBytes: mib },
    { memoryLimitInBytes: 2n * mib, memorySwapLimitInBytes: mib },
    { memoryLimitInBytes: mib, memorySwapLimitInBytes: -2n },
    { cpuShares: -1n },
    { cpuPeriod: 999n },
    { cpuPeriod: 1_000_001n },
    { cpuPeriod: -1n },
    { cpuQuota: 999n },
    { cpuQuota: 2n ** 60n },
    { cpusetCpus: "0-" },
    { cpusetCpus: "../x" },
    { cpusetMems: "0\n1" },
    { hugepageLimits: [{ pageSize: "2mb", limit: 1n }] },
    { hugepageLimits: [{ pageSize: "../2MB", limit: 1n }] },
    { unified: { "memory.high": "1\n2" } },
  ])("refuses %o", (overrides) => {
    expect(() => toOciResources(linuxResources(overrides), "v2")).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });
});

describe("applyResourceUpdate", () => {
  const current = linuxResources({
    cpuShares: 100n,
    cpuPeriod: 100_000n,
    memoryLimitInBytes: 10n * mib,
    oomScoreAdj: 900n,
    cpusetCpus: "0",
    hugepageLimits: [{ pageSize: "2MB", limit: 1n }],
    unified: { "memory.high": "1" },
  });

  test("keeps what the update leaves at 0 or empty", () => {
    expect(applyResourceUpdate(current, linuxResources())).toEqual(current);
  });

  test("takes new values, merges maps, and leaves the score of running processes", () => {
    const update = linuxResources({
      cpuShares: 200n,
      cpuQuota: 5000n,
      oomScoreAdj: 5n,
      hugepageLimits: [{ pageSize: "1GB", limit: 2n }],
      unified: { "memory.low": "2" },
    });
    expect(applyResourceUpdate(current, update)).toEqual({
      ...current,
      cpuShares: 200n,
      cpuQuota: 5000n,
      hugepageLimits: [
        { pageSize: "2MB", limit: 1n },
        { pageSize: "1GB", limit: 2n },
      ],
      unified: { "memory.high": "1", "memory.low": "2" },
    });
  });

  test("moves the swap limit along with the memory limit it counts", () => {
    const withSwap = linuxResources({ memoryLimitInBytes: 10n * mib, memorySwapLimitInBytes: 15n * mib });
    const updated = applyResourceUpdate(withSwap, linuxResources({ memoryLimitInBytes: 20n * mib }));
    expect(updated.memorySwapLimitInBytes).toBe(25n * mib);
    expect(() => toOciResources(updated, "v2")).not.toThrow();
    const unlimited = linuxResources({ memoryLimitInBytes: mib, memorySwapLimitInBytes: -1n });
    const raised = applyResourceUpdate(unlimited, linuxResources({ memoryLimitInBytes: 2n * mib }));
    expect(raised.memorySwapLimitInBytes).toBe(-1n);
  });
});

test("writes the score as far as the kernel lets it", () => {
  expect(buildOomScoreAdj(-998n, -1000)).toBe(-998);
  expect(buildOomScoreAdj(-998n, 0)).toBe(0);
  expect(buildOomScoreAdj(1000n, 0)).toBe(1000);
  for (const score of [-1001n, 1001n, 2n ** 40n]) expect(() => buildOomScoreAdj(score, -1000)).toThrow(/not in/);
});
