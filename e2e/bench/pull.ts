import { runCommand } from "../harness/run-command.ts";
import type { Contestant } from "./contestant.ts";
import type { Recorder } from "./measurements.ts";
import { readDaemonCpuSeconds } from "./processes.ts";

const timeoutMs = 600_000;

/** Pulls the large image into a server that does not have it, and removes it again. */
export async function runPull(contestant: Contestant, recorder: Recorder): Promise<void> {
  const { client, largeImage } = contestant;
  if (largeImage === undefined) return;
  const image = { image: largeImage };
  await runCommand(["sync"]); // what others wrote is not this pull's to wait for
  const before = await readDaemonCpuSeconds(contestant);
  await timeSeconds(recorder, "PullImage", () => client.call("PullImage", { image }, { timeoutMs }));
  recorder.add("PullImage CPU", (await readDaemonCpuSeconds(contestant)) - before);
  await runCommand(["sync"]);
  await timeSeconds(recorder, "RemoveImage", () => client.call("RemoveImage", { image }, { timeoutMs }));
}

async function timeSeconds(recorder: Recorder, step: string, work: () => Promise<unknown>): Promise<void> {
  const startedAt = performance.now();
  await work();
  recorder.add(step, (performance.now() - startedAt) / 1000);
}
