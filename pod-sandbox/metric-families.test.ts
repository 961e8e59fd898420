import { describe, expect, it } from "vitest";
import { loadJsonCodecs } from "../cri-api/index.ts";
import type { CgroupCounters } from "../oci/index.ts";
import { metricFamilies } from "./metric-families.ts";
import type { Measured } from "./metric-families.ts";

const stall = { totalNs: 3_999_999_999n, avg10: 0, avg60: 0, avg300: 0 };
const pressure = { some: stall, full: { ...stall, totalNs: 1_000_000_000n } };
const counters: CgroupCounters = {
  usage: {
    cpuUsageNs: 5_999_999_999n,
    memory: {
      usageBytes: 5000n,
      workingSetBytes: 4000n,
      rssBytes: 3000n,
      pageFaults: 70n,
      majorPageFaults: 7n,
      availableBytes: undefined,
    },
    swap: { usageBytes: 500n, availableBytes: undefined },
    taskCount: 9n,
    processCount: 2n,
    pressure: { cpu: pressure, memory: pressure, io: pressure },
  },
  cpu: { userNs: 3_000_000_000n, systemNs: 2_999_999_999n, periods: 10n, throttledPeriods: 4n, throttledNs: 7n },
  memory: {
    cacheBytes: 100n,
    mappedFileBytes: 200n,
    kernelBytes: 300n,
    highestUsageBytes: 6000n,
    limitHits: 3n,
    oomKills: 1n,
    pageFaults: 60n,
    majorPageFaults: 6n,
  },
  taskLimit: undefined,
  hugepages: [{ pageSize: "2MB", usageBytes: 4_194_304n, highestUsageBytes: undefined }],
  devices: [{ major: "8", minor: "0", readBytes: 4096n, writtenBytes: 512n, reads: 2n, writes: 1n }],
};
const traffic = { bytes: 1n, packets: 2n, errors: 3n, dropped: 4n };
const measured: Measured = {
  counters,
  interfaces: [{ name: "eth0", received: traffic, transmitted: { ...traffic, bytes: 10n } }],
  resources: loadJsonCodecs().LinuxContainerResources.fromJson({ cpuQuota: "50000", memoryLimitInBytes: "8000" }),
  layer: { usedBytes: 4096n },
  startedAtNs: 1_000_500_000_000n,
  nowNs: 2_000_500_000_000n,
  deviceNames: new Map([["8:0", "sda"]]),
};

/** Every value as `name{labels} value`. */
function linesOf(subject: Measured): readonly string[] {
  return metricFamilies.flatMap(({ name, values }) =>
    values(subject).flatMap(({ labels, value }) =>
      value === undefined ? [] : [`${name}{${labels.join(",")}} ${value}`],
    ),
  );
}

describe("metricFamilies", () => {
  it("names each once, explains it, and labels its values with as many labels as it has keys", () => {
    const names = metricFamilies.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, help, labelKeys, values } of metricFamilies) {
      expect(name).toMatch(/^container_[a-z0-9_]+$/);
      expect(help).not.toBe("");
      const shown = values(measured);
      expect(shown, name).not.toEqual([]);
      for (const { labels } of shown) expect(labels, name).toHaveLength(labelKeys.length);
    }
  });

  it("gives whole seconds, and the names cAdvisor gives devices and directions", () => {
    const lines = linesOf(measured);
    for (const line of [
      "container_last_seen{} 2000",
      "container_start_time_seconds{} 1000",
      "container_cpu_usage_seconds_total{total} 5",
      "container_cpu_user_seconds_total{} 3",
      "container_cpu_system_seconds_total{} 2",
      "container_cpu_cfs_throttled_periods_total{} 4",
      "container_memory_working_set_bytes{} 4000",
      "container_memory_failures_total{pgfault,container} 60",
      "container_memory_failures_total{pgmajfault,hierarchy} 7",
      "container_oom_events_total{} 1",
      "container_hugetlb_usage_bytes{2MB} 4194304",
      "container_network_receive_packets_dropped_total{eth0} 4",
      "container_network_transmit_bytes_total{eth0} 10",
      "container_processes{} 2",
      "container_threads{} 9",
      "container_threads_max{} 0",
      "container_spec_cpu_quota{} 50000",
      "container_spec_cpu_shares{} 1024",
      "container_spec_memory_limit_bytes{} 8000",
      "container_fs_usage_bytes{} 4096",
      "container_fs_writes_bytes_total{/dev/sda} 512",
      "container_blkio_device_usage_total{/dev/sda,8,0,Read} 4096",
      "container_pressure_cpu_waiting_seconds_total{} 3",
      "container_pressure_io_stalled_seconds_total{} 1",
    ])
      expect(lines).toContain(line);
    expect(lines.join()).not.toContain("container_hugetlb_max_usage_bytes");
  });

  it("says of a pod without a cgroup of its own what is known all the same", () => {
    const bare = { ...measured, counters: undefined, resources: undefined, layer: undefined, startedAtNs: 0n };
    const kinds = linesOf(bare).map((line) => line.split("_")[1]);
    expect(new Set(kinds)).toEqual(new Set(["last", "network"]));
  });

  it("does not count periods where there is no quota", () => {
    const cpu = { ...counters.cpu, periods: 0n };
    const lines = linesOf({ ...measured, counters: { ...counters, cpu } });
    expect(lines.filter((line) => line.includes("cfs"))).toEqual([]);
  });

  it("calls a device that has no name by its numbers", () => {
    expect(linesOf({ ...measured, deviceNames: new Map() })).toContain("container_fs_reads_total{8:0} 2");
  });
});
