import { expect, test } from "vitest";
import { countOf } from "./cgroup-files.ts";
import { parseUsage } from "./cgroup-stats.ts";

function files(contents: Readonly<Record<string, string>>): (file: string) => string {
  return (file) => contents[file] ?? "";
}

const legacy = {
  "cpuacct.usage": "123456789\n",
  "memory.usage_in_bytes": "5000000\n",
  "memory.stat":
    "cache 1\nhierarchical_memory_limit 8000000\nhierarchical_memsw_limit 10000000\ntotal_rss 1000\ntotal_pgfault 7\ntotal_pgmajfault 2\ntotal_inactive_file 4000000\ntotal_swap 500000\n",
  "pids.current": "3\n",
  "cgroup.procs": "11\n12\n",
};
const unified = {
  "cpu.stat": "usage_usec 42\nuser_usec 40\n",
  "memory.current": "5000000\n",
  "memory.stat": "anon 1000\nfile 2\ninactive_file 4000000\npgfault 7\npgmajfault 2\n",
  "memory.max": "8000000\n",
  "memory.swap.current": "500000\n",
  "memory.swap.max": "2000000\n",
  "pids.current": "3\n",
  "cgroup.procs": "11\n12\n",
};
const noPressure = { cpu: undefined, memory: undefined, io: undefined };
const memory = {
  usageBytes: 5_000_000n,
  workingSetBytes: 1_000_000n,
  rssBytes: 1000n,
  pageFaults: 7n,
  majorPageFaults: 2n,
  availableBytes: 7_000_000n,
};
const swap = { usageBytes: 500_000n, availableBytes: 1_500_000n };

test("v1 counts", () => {
  expect(parseUsage(files(legacy))).toEqual({
    cpuUsageNs: 123_456_789n,
    memory,
    swap,
    taskCount: 3n,
    processCount: 2n,
    pressure: noPressure,
  });
});

test("v2 counts", () => {
  expect(parseUsage(files(unified))).toEqual({
    cpuUsageNs: 42_000n,
    memory,
    swap,
    taskCount: 3n,
    processCount: 2n,
    pressure: noPressure,
  });
});

test("controllers may be on different hierarchies", () => {
  const { "cpuacct.usage": _, ...others } = legacy;
  expect(parseUsage(files({ ...others, "cpu.stat": unified["cpu.stat"] }))?.cpuUsageNs).toBe(42_000n);
});

test("no limit is nothing available, in both spellings", () => {
  const none = legacy["memory.stat"].replaceAll(/_limit \d+/g, "_limit 9223372036854771712");
  const usage = parseUsage(files({ ...legacy, "memory.stat": none }));
  expect([usage?.memory.availableBytes, usage?.swap?.availableBytes]).toEqual([undefined, undefined]);
  const max = parseUsage(files({ ...unified, "memory.max": "max\n", "memory.swap.max": "max\n" }));
  expect([max?.memory.availableBytes, max?.swap?.availableBytes]).toEqual([undefined, undefined]);
});

test("swap that the kernel does not count is no swap", () => {
  expect(parseUsage(files({ ...legacy, "memory.stat": "total_rss 1\n" }))?.swap).toBeUndefined();
  expect(parseUsage(files({ ...unified, "memory.swap.current": "" }))?.swap).toBeUndefined();
});

test("nothing falls below zero", () => {
  const usage = parseUsage(files({ ...legacy, "memory.usage_in_bytes": "5\n" }));
  expect(usage?.memory.workingSetBytes).toBe(0n);
  expect(parseUsage(files({ ...unified, "memory.max": "1\n" }))?.memory.availableBytes).toBe(0n);
});

test("64-bit counts keep every digit", () => {
  expect(parseUsage(files({ ...legacy, "cpuacct.usage": "18446744073709551615\n" }))?.cpuUsageNs).toBe(2n ** 64n - 1n);
});

test("cgroups that are gone are no sample", () => {
  expect(parseUsage(files({}))).toBeUndefined();
  expect(parseUsage(files({ ...legacy, "cpuacct.usage": "garbage" }))).toBeUndefined();
});

test("stalls of each resource, in nanoseconds and percent", () => {
  const text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
  const usage = parseUsage(files({ ...unified, "memory.pressure": text, "io.pressure": "some\n", "cpu.pressure": "" }));
  expect(usage?.pressure).toEqual({
    ...noPressure,
    memory: {
      some: { totalNs: 7000n, avg10: 1.5, avg60: 0.25, avg300: 0 },
      full: { totalNs: 3000n, avg10: 0, avg60: 0, avg300: 0 },
    },
  });
});

test("a count is found by its whole name, wherever it stands", () => {
  const text = "total_rss_huge 1\ntotal_rss 2\nlast_total_rss 3";
  expect(countOf(text, "total_rss")).toBe(2n);
  expect(countOf(text, "total_rss_huge")).toBe(1n);
  expect(countOf(text, "last_total_rss")).toBe(3n);
  for (const absent of ["rss", "total", "huge", "total_rss_hug"]) expect(countOf(text, absent)).toBeUndefined();
  expect(countOf("", "x")).toBeUndefined();
  expect(countOf("x much\n", "x")).toBeUndefined();
});
