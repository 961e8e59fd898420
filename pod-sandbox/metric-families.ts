import type { cri } from "../cri-api/index.ts";
import type { InterfaceCounters } from "../native/index.ts";
import type { CgroupCounters, PressureKind } from "../oci/index.ts";

/** What is known of one container or pod when its metrics are made. Undefined: it has no such thing. */
export interface Measured {
  readonly counters: CgroupCounters | undefined;
  readonly interfaces: readonly InterfaceCounters[];
  readonly resources: cri.LinuxContainerResources | undefined;
  readonly layer: { readonly usedBytes: bigint } | undefined;
  readonly startedAtNs: bigint;
  readonly nowNs: bigint;
  /** Block devices by `major:minor`. */
  readonly deviceNames: ReadonlyMap<string, string>;
}

/** One value; `labels` in the order of the family's `labelKeys`. */
export interface LabelledValue {
  readonly labels: readonly string[];
  readonly value: bigint | undefined;
}

/** Metrics of one name: CRI carries whole numbers only, so seconds are cut off. */
export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: cri.MetricType;
  /** Those of its own, after those that all have. */
  readonly labelKeys: readonly string[];
  readonly values: (measured: Measured) => readonly LabelledValue[];
}

type Read = (measured: Measured) => bigint | undefined;

function plain(type: cri.MetricType, name: string, help: string, read: Read): MetricFamily {
  return { name, help, type, labelKeys: [], values: (measured) => [{ labels: [], value: read(measured) }] };
}

function counter(name: string, help: string, read: Read): MetricFamily {
  return plain("COUNTER", name, help, read);
}

function gauge(name: string, help: string, read: Read): MetricFamily {
  return plain("GAUGE", name, help, read);
}

function seconds(nanoseconds: bigint | undefined): bigint | undefined {
  return nanoseconds === undefined ? undefined : nanoseconds / 1_000_000_000n;
}

type Direction = "received" | "transmitted";
type Traffic = keyof InterfaceCounters[Direction];

function network(name: string, help: string, direction: Direction, traffic: Traffic): MetricFamily {
  return {
    name: `container_network_${name}_total`,
    help,
    type: "COUNTER",
    labelKeys: ["interface"],
    values: ({ interfaces }) => interfaces.map((each) => ({ labels: [each.name], value: each[direction][traffic] })),
  };
}

function hugetlb(name: string, help: string, field: "usageBytes" | "highestUsageBytes"): MetricFamily {
  return {
    name,
    help,
    type: "GAUGE",
    labelKeys: ["pagesize"],
    values: ({ counters }) =>
      (counters?.hugepages ?? []).map((pages) => ({ labels: [pages.pageSize], value: pages[field] })),
  };
}

type DeviceField = "readBytes" | "writtenBytes" | "reads" | "writes";

function deviceLabel({ deviceNames }: Measured, major: string, minor: string): string {
  const numbers = `${major}:${minor}`;
  const name = deviceNames.get(numbers);
  return name === undefined ? numbers : `/dev/${name}`;
}

function disk(name: string, help: string, field: DeviceField): MetricFamily {
  return {
    name,
    help,
    type: "COUNTER",
    labelKeys: ["device"],
    values: (measured) =>
      (measured.counters?.devices ?? []).map((device) => ({
        labels: [deviceLabel(measured, device.major, device.minor)],
        value: device[field],
      })),
  };
}

function pressure(kind: PressureKind, degree: "some" | "full", help: string): MetricFamily {
  const word = degree === "some" ? "waiting" : "stalled";
  return counter(`container_pressure_${kind}_${word}_seconds_total`, help, ({ counters }) =>
    seconds(counters?.usage.pressure[kind]?.[degree].totalNs),
  );
}

/** Only where there is a quota: without one the kernel counts no periods. */
function throttling(
  name: string,
  help: string,
  read: (cpu: CgroupCounters["cpu"]) => bigint | undefined,
): MetricFamily {
  return counter(`container_cpu_cfs_${name}_total`, help, ({ counters }) =>
    counters?.cpu.periods ? read(counters.cpu) : undefined,
  );
}

function isSet(value: bigint | undefined): bigint | undefined {
  return value !== undefined && value > 0n ? value : undefined;
}

/** The kernel's own, where the config leaves them out. */
const defaultCpuPeriod = 100_000n;
const defaultCpuShares = 1024n;

/**
 * Every metric, under the name, help and labels that cAdvisor gives it, so that dashboards made for it go on.
 *
 * @see https://github.com/google/cadvisor/blob/v0.52.1/docs/storage/prometheus.md
 */
export const metricFamilies: readonly MetricFamily[] = [
  gauge("container_last_seen", "Last time a container was seen by the exporter", ({ nowNs }) => seconds(nowNs)),
  gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", ({ startedAtNs }) =>
    isSet(seconds(startedAtNs)),
  ),

  counter("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", ({ counters }) =>
    seconds(counters?.cpu.userNs),
  ),
  counter("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", ({ counters }) =>
    seconds(counters?.cpu.systemNs),
  ),
  {
    name: "container_cpu_usage_seconds_total",
    help: "Cumulative cpu time consumed in seconds.",
    type: "COUNTER",
    labelKeys: ["cpu"],
    values: ({ counters }) => [{ labels: ["total"], value: seconds(counters?.usage.cpuUsageNs) }],
  },
  throttling("periods", "Number of elapsed enforcement period intervals.", ({ periods }) => periods),
  throttling("throttled_periods", "Number of throttled period intervals.", (cpu) => cpu.throttledPeriods),
  throttling("throttled_seconds", "Total time duration the container has been throttled.", (cpu) =>
    seconds(cpu.throttledNs),
  ),

  gauge(
    "container_memory_cache",
    "Number of bytes of page cache memory.",
    ({ counters }) => counters?.memory.cacheBytes,
  ),
  gauge("container_memory_rss", "Size of RSS in bytes.", ({ counters }) => counters?.usage.memory.rssBytes),
  gauge(
    "container_memory_kernel_usage",
    "Size of kernel memory allocated in bytes.",
    ({ counters }) => counters?.memory.kernelBytes,
  ),
  gauge(
    "container_memory_mapped_file",
    "Size of memory mapped files in bytes.",
    ({ counters }) => counters?.memory.mappedFileBytes,
  ),
  gauge("container_memory_swap", "Container swap usage in bytes.", ({ counters }) => counters?.usage.swap?.usageBytes),
  counter(
    "container_memory_failcnt",
    "Number of memory usage hits limits",
    ({ counters }) => counters?.memory.limitHits,
  ),
  gauge(
    "container_memory_usage_bytes",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    ({ counters }) => counters?.usage.memory.usageBytes,
  ),
  gauge(
    "container_memory_max_usage_bytes",
    "Maximum memory usage recorded in bytes",
    ({ counters }) => counters?.memory.highestUsageBytes,
  ),
  gauge(
    "container_memory_working_set_bytes",
    "Current working set in bytes.",
    ({ counters }) => counters?.usage.memory.workingSetBytes,
  ),
  {
    name: "container_memory_failures_total",
    help: "Cumulative count of memory allocation failures.",
    type: "COUNTER",
    labelKeys: ["failure_type", "scope"],
    values: ({ counters }) => [
      { labels: ["pgfault", "container"], value: counters?.memory.pageFaults },
      { labels: ["pgfault", "hierarchy"], value: counters?.usage.memory.pageFaults },
      { labels: ["pgmajfault", "container"], value: counters?.memory.majorPageFaults },
      { labels: ["pgmajfault", "hierarchy"], value: counters?.usage.memory.majorPageFaults },
    ],
  },
  counter(
    "container_oom_events_total",
    "Count of out of memory events observed for the container",
    ({ counters }) => counters?.memory.oomKills,
  ),
  hugetlb("container_hugetlb_usage_bytes", "Current hugepage usage in bytes", "usageBytes"),
  hugetlb("container_hugetlb_max_usage_bytes", "Maximum hugepage usages recorded in bytes", "highestUsageBytes"),

  network("receive_bytes", "Cumulative count of bytes received", "received", "bytes"),
  network("receive_packets", "Cumulative count of packets received", "received", "packets"),
  network("receive_packets_dropped", "Cumulative count of packets dropped while receiving", "received", "dropped"),
  network("receive_errors", "Cumulative count of errors encountered while receiving", "received", "errors"),
  network("transmit_bytes", "Cumulative count of bytes transmitted", "transmitted", "bytes"),
  network("transmit_packets", "Cumulative count of packets transmitted", "transmitted", "packets"),
  network(
    "transmit_packets_dropped",
    "Cumulative count of packets dropped while transmitting",
    "transmitted",
    "dropped",
  ),
  network("transmit_errors", "Cumulative count of errors encountered while transmitting", "transmitted", "errors"),

  gauge(
    "container_processes",
    "Number of processes running inside the container.",
    ({ counters }) => counters && (isSet(counters.usage.processCount) ?? counters.usage.taskCount),
  ),
  gauge(
    "container_threads",
    "Number of threads running inside the container.",
    ({ counters }) => counters?.usage.taskCount,
  ),
  gauge(
    "container_threads_max",
    "Maximum number of threads allowed inside the container, infinity if value is zero",
    ({ counters }) => counters && (counters.taskLimit ?? 0n),
  ),

  gauge(
    "container_spec_cpu_period",
    "CPU period of the container.",
    ({ resources }) => resources && (isSet(resources.cpuPeriod) ?? defaultCpuPeriod),
  ),
  gauge("container_spec_cpu_quota", "CPU quota of the container.", ({ resources }) => isSet(resources?.cpuQuota)),
  gauge(
    "container_spec_cpu_shares",
    "CPU share of the container.",
    ({ resources }) => resources && (isSet(resources.cpuShares) ?? defaultCpuShares),
  ),
  gauge(
    "container_spec_memory_limit_bytes",
    "Memory limit for the container.",
    ({ resources }) => resources && (isSet(resources.memoryLimitInBytes) ?? 0n),
  ),
  gauge(
    "container_spec_memory_reservation_limit_bytes",
    "Memory reservation limit for the container.",
    ({ resources }) => resources && 0n, // CRI has none
  ),
  gauge(
    "container_spec_memory_swap_limit_bytes",
    "Memory swap limit for the container.",
    ({ resources }) => resources && (isSet(resources.memorySwapLimitInBytes) ?? 0n),
  ),

  gauge(
    "container_fs_usage_bytes",
    "Number of bytes that are consumed by the container on this filesystem.",
    ({ layer }) => layer?.usedBytes,
  ),
  disk("container_fs_reads_bytes_total", "Cumulative count of bytes read", "readBytes"),
  disk("container_fs_reads_total", "Cumulative count of reads completed", "reads"),
  disk("container_fs_writes_bytes_total", "Cumulative count of bytes written", "writtenBytes"),
  disk("container_fs_writes_total", "Cumulative count of writes completed", "writes"),
  {
    name: "container_blkio_device_usage_total",
    help: "Blkio Device bytes usage",
    type: "COUNTER",
    labelKeys: ["device", "major", "minor", "operation"],
    values: (measured) =>
      (measured.counters?.devices ?? []).flatMap(({ major, minor, readBytes, writtenBytes }) => {
        const labels = [deviceLabel(measured, major, minor), major, minor];
        return [
          { labels: [...labels, "Read"], value: readBytes },
          { labels: [...labels, "Write"], value: writtenBytes },
        ];
      }),
  },

  pressure("cpu", "full", "Total time duration no tasks in the container could make progress due to CPU congestion."),
  pressure("cpu", "some", "Total time duration tasks in the container have waited due to CPU congestion."),
  pressure(
    "memory",
    "full",
    "Total time duration no tasks in the container could make progress due to memory congestion.",
  ),
  pressure("memory", "some", "Total time duration tasks in the container have waited due to memory congestion."),
  pressure("io", "full", "Total time duration no tasks in the container could make progress due to IO congestion."),
  pressure("io", "some", "Total time duration tasks in the container have waited due to IO congestion."),
];
