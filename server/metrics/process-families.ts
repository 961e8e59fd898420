import { readdir } from "node:fs/promises";
import type { monitorEventLoopDelay } from "node:perf_hooks";
import type { Family } from "./exposition.ts";

/** A timer of so long a time is what the delay is measured by; the histogram counts it in. */
export const delayResolutionMs = 20;

function single(name: string, help: string, value: number, type: Family["type"] = "gauge"): Family {
  return { name, help, type, samples: [{ value }] };
}

/** Prometheus's own names for any process, and how long the event loop kept callbacks waiting since the last look. */
export async function processFamilies(delay: ReturnType<typeof monitorEventLoopDelay>): Promise<readonly Family[]> {
  const { user, system } = process.cpuUsage();
  const startedAt = Date.now() / 1000 - process.uptime();
  const openFds = (await readdir("/proc/self/fd")).length;
  const quantiles = [50, 90, 99, 99.9].map((percent) => ({
    labels: { quantile: String(percent / 100).slice(0, 5) },
    value: Math.max(delay.percentile(percent) / 1e9 - delayResolutionMs / 1000, 0),
  }));
  delay.reset();
  return [
    single("process_cpu_seconds_total", "Processor time of the daemon.", (user + system) / 1e6, "counter"),
    single("process_resident_memory_bytes", "Resident memory of the daemon.", process.memoryUsage.rss()),
    single("process_open_fds", "Open file descriptors of the daemon.", openFds),
    single("process_start_time_seconds", "Start of the daemon, since the epoch.", startedAt),
    {
      name: "berth_event_loop_delay_seconds",
      help: "How late timers of the main thread were since the last scrape.",
      type: "gauge",
      samples: quantiles,
    },
  ];
}
