import type { Contestant } from "./contestant.ts";
import type { Recorder } from "./measurements.ts";
import { inParallel, type PodSettings, runPod } from "./pods.ts";
import { findManagers, sumPssMiB } from "./processes.ts";

/** As many as the lists and the memory are measured with. */
const podCount = 100;
/** List calls take about a millisecond: one of them a round would say little. */
const listCallsPerRound = 10;
const settleMs = 3_000;

/** Fills a server with one-container pods. */
export async function populate(settings: PodSettings, contestant: Contestant, count = podCount): Promise<void> {
  const names = Array.from({ length: count }, (_, index) => `full${index}`);
  await inParallel(names, (name) => runPod(settings, contestant, name));
}

/** Before there is any pod, with all of them, and after they have been listed for a while. */
export type Moment = "idle" | "full" | "at work";

/** Measures daemon and monitors. */
export async function measureMemory(contestant: Contestant, recorder: Recorder, when: Moment): Promise<void> {
  if (when !== "idle") await new Promise((resolve) => setTimeout(resolve, settleMs));
  const { daemon, monitors } = await findManagers(contestant);
  const daemonMiB = await sumPssMiB(daemon);
  const monitorsMiB = await sumPssMiB(monitors);
  if (contestant.pid !== undefined) {
    recorder.add(`PSS of the daemon, ${when}`, daemonMiB);
    recorder.add(`PSS of daemon and monitors, ${when}`, daemonMiB + monitorsMiB);
  }
  if (when === "full") recorder.add("PSS of the monitors", monitorsMiB);
}

/** The calls that kubelet repeats for ever, against a full server. */
export async function runLists(contestant: Contestant, recorder: Recorder): Promise<void> {
  const { client, name } = contestant;
  for (let index = 0; index < listCallsPerRound; index++) {
    const { containers } = await recorder.time("ListContainers", () => client.call("ListContainers"));
    expectFull(name, containers.length);
    const { items } = await recorder.time("ListPodSandbox", () => client.call("ListPodSandbox"));
    expectFull(name, items.length);
  }
  const { stats } = await recorder.time("ListContainerStats", () => client.call("ListContainerStats"));
  expectFull(name, stats.length);
}

function expectFull(name: string, count: number): void {
  if (count < podCount) throw new Error(`${name} lists ${count} of ${podCount}`);
}
