import { runCommand } from "../harness/run-command.ts";
import type { Contestant } from "./contestant.ts";
import type { Recorder } from "./measurements.ts";
import { readDaemonCpuSeconds, watchResidentSet } from "./processes.ts";
import { repeatUntil } from "./steady.ts";

const timeoutMs = 600_000;
const listEveryMs = 20;

/** Pulls the large image into a server that does not have it, and removes it again. */
export async function runPull(contestant: Contestant, recorder: Recorder): Promise<void> {
  const { client, pullImages } = contestant;
  if (pullImages === undefined) return;
  const image = { image: pullImages.large };
  await runCommand(["sync"]); // what others wrote is not this pull's to wait for
  const residentGrowth = await watchResidentSet(contestant);
  const before = await readDaemonCpuSeconds(contestant);
  await timeSeconds(recorder, "PullImage", () => client.call("PullImage", { image }, { timeoutMs }));
  recorder.add("PullImage CPU", (await readDaemonCpuSeconds(contestant)) - before);
  const growthMb = await residentGrowth();
  if (growthMb !== undefined) recorder.add("RSS growth in PullImage", growthMb);
  await runCommand(["sync"]);
  await timeSeconds(recorder, "RemoveImage", () => client.call("RemoveImage", { image }, { timeoutMs }));
}

/** Pulls 500 MB where each connection is slow, in eight layers and in one, and removes them again. */
export async function runThrottledPulls(contestant: Contestant, recorder: Recorder): Promise<void> {
  const { client, pullImages } = contestant;
  if (pullImages === undefined) return;
  const pull = async (name: string, step: string): Promise<void> => {
    const image = { image: name };
    await runCommand(["sync"]);
    await timeSeconds(recorder, step, () => client.call("PullImage", { image }, { timeoutMs }));
    await client.call("RemoveImage", { image }, { timeoutMs });
  };
  await pull(pullImages.largeThrottled, "PullImage, 20 MB/s a connection");
  await pull(pullImages.oneLayerThrottled, "PullImage, one layer, 20 MB/s");
}

/** Pulls twenty images at once while the server is asked for its containers as a busy node would, and removes them. */
export async function runManyPulls(
  contestant: Contestant,
  recorder: Recorder,
  interrupted: AbortSignal,
): Promise<void> {
  const { client, pullImages } = contestant;
  if (pullImages === undefined) return;
  const images = pullImages.small.map((image) => ({ image }));
  await runCommand(["sync"]);
  let isOver = false;
  const pulls = timeSeconds(recorder, "20 pulls at once", () =>
    Promise.all(images.map((image) => client.call("PullImage", { image }, { timeoutMs }))),
  ).finally(() => (isOver = true));
  const lists = repeatUntil(
    () => isOver,
    { everyMs: listEveryMs, interrupted },
    () => recorder.time("ListContainers in 20 pulls", async () => void (await client.call("ListContainers"))),
  );
  await Promise.all([pulls, lists]);
  for (const image of images) await client.call("RemoveImage", { image }, { timeoutMs });
}

async function timeSeconds(recorder: Recorder, step: string, work: () => Promise<unknown>): Promise<void> {
  const startedAt = performance.now();
  await work();
  recorder.add(step, (performance.now() - startedAt) / 1000);
}
