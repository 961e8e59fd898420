/** One line of the result: the sum of some steps, and what Berth promises about it. */
export interface Row {
  readonly title: string;
  readonly unit: "ms" | "s" | "MiB" | "MB" | "";
  readonly steps: readonly string[];
  /** The bare processes that do the same work. */
  readonly floorSteps?: readonly string[];
  /** Berth's median is to be at most this share of containerd's. */
  readonly mark?: number;
  /** Berth's median is to be at most this, whatever anybody else's is. */
  readonly limit?: number;
}

const runPod = { steps: ["RunPodSandbox"], floorSteps: ["netns add", "CNI ADD"] };
const start = { steps: ["CreateContainer", "StartContainer"], floorSteps: ["crun create", "crun start"] };
const stop = { steps: ["StopContainer", "RemoveContainer"], floorSteps: ["SIGTERM", "crun delete"] };
const stopPod = { steps: ["StopPodSandbox", "RemovePodSandbox"], floorSteps: ["CNI DEL", "netns delete"] };
const lifecycle = [runPod, start, stop, stopPod];

/** A line for a step that is a line of its own. */
function single(title: string, unit: Row["unit"], mark?: number): Row {
  return { title, unit, steps: [title], ...(mark === undefined ? {} : { mark }) };
}

export const rows: readonly Row[] = [
  { title: "RunPodSandbox", unit: "ms", mark: 0.65, ...runPod },
  single("CreateContainer", "ms"),
  single("StartContainer", "ms"),
  { title: "Create + StartContainer", unit: "ms", mark: 1.0, ...start },
  { title: "ExecSync", unit: "ms", mark: 1.0, steps: ["ExecSync"], floorSteps: ["crun exec"] },
  single("StopContainer", "ms"),
  single("RemoveContainer", "ms"),
  { title: "Stop + RemoveContainer", unit: "ms", mark: 0.7, ...stop },
  single("StopPodSandbox", "ms"),
  single("RemovePodSandbox", "ms"),
  { title: "Stop + RemovePodSandbox", unit: "ms", mark: 0.5, ...stopPod },
  {
    title: "lifecycle without exec",
    unit: "ms",
    mark: 0.65,
    steps: lifecycle.flatMap(({ steps }) => steps),
    floorSteps: lifecycle.flatMap(({ floorSteps }) => floorSteps),
  },
  { ...single("ListContainers", "ms", 1.5), title: "ListContainers, 100" },
  { ...single("ListPodSandbox", "ms"), title: "ListPodSandbox, 100" },
  { ...single("ListContainerStats", "ms", 0.2), title: "ListContainerStats, 100" },
  single("PSS of the daemon, idle", "MiB"),
  single("PSS of the daemon, full", "MiB"),
  single("PSS of the monitors", "MiB"),
  single("PSS of daemon and monitors, full", "MiB", 0.25),
  single("PSS of daemon and monitors, at work", "MiB"),
  single("PullImage", "s"),
  single("PullImage CPU", "s"),
  single("RemoveImage", "s"),
  { ...single("RSS growth in PullImage", "MB"), limit: 150 },
  single("PullImage, 20 MB/s a connection", "s", 0.4),
  single("PullImage, one layer, 20 MB/s", "s", 0.4),
  single("20 pulls at once", "s"),
  { ...single("ListContainers in 20 pulls", "ms"), limit: 20 },
  single("CPU a minute, steady", "s", 0.8),
  { ...single("lists, steady, p99", "ms"), limit: 20 },
  single("exec probes, steady, p99", "ms"),
  single("exec probes a second, steady", ""),
  { ...single("event loop delay, steady, p99.9", "ms"), limit: 50 },
];

/** The lines of the floor itself. */
export const floorSteps: readonly string[] = [
  "netns add",
  "CNI ADD",
  "crun create",
  "crun start",
  "crun exec",
  "SIGTERM",
  "crun delete",
  "CNI DEL",
  "netns delete",
];
