import { expect, test } from "vitest";
import { parseCounters, parsePartitions } from "./cgroup-counters.ts";

function files(contents: Readonly<Record<string, string>>): (file: string) => string {
  return (file) => contents[file] ?? "";
}

const legacy = {
  "cpuacct.usage": "5000000000\n",
  "cpuacct.usage_user": "3000000000\n",
  "cpuacct.usage_sys": "2000000000\n",
  "cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 7000000\n",
  "memory.usage_in_bytes": "5000000\n",
  "memory.stat": "pgfault 5\npgmajfault 1\ntotal_cache 100\ntotal_mapped_file 200\ntotal_pgfault 7\n",
  "memory.max_usage_in_bytes": "6000000\n",
  "memory.failcnt": "3\n",
  "memory.kmem.usage_in_bytes": "300\n",
  "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  "pids.max": "max\n",
  "hugetlb.2MB.usage_in_bytes": "4194304\n",
  "hugetlb.2MB.max_usage_in_bytes": "8388608\n",
  "blkio.throttle.io_service_bytes_recursive":
    "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\n253:1 Read 1\nTotal 4609\n",
  "blkio.throttle.io_serviced_recursive": "8:0 Read 2\n8:0 Write 1\n8:0 Total 3\nTotal 3\n",
};
const unified = {
  "cpu.stat":
    "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7000\n",
  "memory.current": "5000000\n",
  "memory.stat": "file 100\nkernel 300\nfile_mapped 200\npgfault 5\npgmajfault 1\n",
  "memory.peak": "6000000\n",
  "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n",
  "pids.max": "100\n",
  "hugetlb.2MB.current": "4194304\n",
  "io.stat": "8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=9 dios=9\n253:1 rbytes=1\n",
};

test.each([
  ["v1", legacy, 8_388_608n, undefined],
  ["v2", unified, undefined, 100n],
] as const)("%s counts", (_version, contents, highestUsageBytes, taskLimit) => {
  const { usage, ...counters } = parseCounters(files(contents), ["1GB", "2MB"]) ?? {};
  expect(usage?.cpuUsageNs).toBe(5_000_000_000n);
  expect(counters).toEqual({
    cpu: {
      userNs: 3_000_000_000n,
      systemNs: 2_000_000_000n,
      periods: 10n,
      throttledPeriods: 4n,
      throttledNs: 7_000_000n,
    },
    memory: {
      cacheBytes: 100n,
      mappedFileBytes: 200n,
      kernelBytes: 300n,
      highestUsageBytes: 6_000_000n,
      limitHits: 3n,
      oomKills: 2n,
      pageFaults: 5n,
      majorPageFaults: 1n,
    },
    taskLimit,
    hugepages: [{ pageSize: "2MB", usageBytes: 4_194_304n, highestUsageBytes }],
    devices: [
      { major: "8", minor: "0", readBytes: 4096n, writtenBytes: 512n, reads: 2n, writes: 1n },
      { major: "253", minor: "1", readBytes: 1n, writtenBytes: 0n, reads: 0n, writes: 0n },
    ],
  });
});

test("what the kernel does not tell is unknown, not zero", () => {
  const counters = parseCounters(files({ "cpuacct.usage": "1\n", "memory.usage_in_bytes": "2\n" }), ["2MB"]);
  expect(counters).toMatchObject({ taskLimit: undefined, hugepages: [], devices: [] });
  for (const value of [...Object.values(counters?.cpu ?? {}), ...Object.values(counters?.memory ?? {})])
    expect(value).toBeUndefined();
  expect(parseCounters(files({}), [])).toBeUndefined();
});

test("block devices have names", () => {
  const text = "major minor  #blocks  name\n\n 254        0  268435456 vda\n   8       17          1 sdb1\n";
  expect([...parsePartitions(text)]).toEqual([
    ["254:0", "vda"],
    ["8:17", "sdb1"],
  ]);
});
