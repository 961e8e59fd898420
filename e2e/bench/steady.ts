import type { CriClient } from "../harness/cri-client.ts";
import { quantile } from "../harness/quantile.ts";
import type { Contestant } from "./contestant.ts";
import type { Recorder } from "./measurements.ts";
import { findManagers } from "./processes.ts";

const listEveryMs = 1_000;
const statsEveryMs = 10_000;
const probeEveryMs = 50;

/** The first answers of each kind are late while the daemon, and this client, still compile what makes and reads them. */
const warmUpMs = 20_000;

/** What a kubelet asks of a full node at rest, for some minutes: lists, statistics, and 20 exec probes a second. */
export async function runSteadyState(
  contestant: Contestant,
  recorder: Recorder,
  run: { readonly minutes: number; readonly interrupted: AbortSignal },
): Promise<void> {
  const { client } = contestant;
  await askLikeKubelet(client, warmUpMs, run.interrupted);
  await readLoopDelayMs(contestant); // what was before the measurement is forgotten with this look
  const cpuBefore = await readCpuSeconds(contestant);
  const times = await askLikeKubelet(client, run.minutes * 60_000, run.interrupted);
  recorder.add("CPU a minute, steady", ((await readCpuSeconds(contestant)) - cpuBefore) / run.minutes);
  recorder.add("lists, steady, p99", quantile(times.lists, 0.99));
  recorder.add("exec probes, steady, p99", quantile(times.probes, 0.99));
  recorder.add("exec probes a second, steady", times.probes.length / (run.minutes * 60));
  const delayMs = await readLoopDelayMs(contestant);
  if (delayMs !== undefined) recorder.add("event loop delay, steady, p99.9", delayMs);
}

interface Times {
  readonly lists: readonly number[];
  readonly probes: readonly number[];
}

async function askLikeKubelet(client: CriClient, durationMs: number, interrupted: AbortSignal): Promise<Times> {
  const { containers } = await client.call("ListContainers");
  const rotation = nextForEver(containers.map(({ id }) => id));
  const times = { lists: [] as number[], probes: [] as number[] };
  const end = performance.now() + durationMs;
  const repeat = (everyMs: number, work: () => Promise<void>): Promise<void> =>
    repeatUntil(() => performance.now() >= end, { everyMs, interrupted }, work);
  const lanes = Array.from({ length: 4 }, () =>
    repeat(probeEveryMs * 4, () =>
      timed(times.probes, () => client.call("ExecSync", { containerId: rotation(), cmd: ["true"], timeout: 10n })),
    ),
  );
  await Promise.all([
    ...lanes,
    repeat(listEveryMs, async () => {
      await timed(times.lists, () => client.call("ListPodSandbox"));
      await timed(times.lists, () => client.call("ListContainers"));
    }),
    repeat(statsEveryMs, async () => void (await client.call("ListContainerStats"))),
  ]);
  return times;
}

/** How late the daemon's main thread was, 999 times of 1000, since the last look. */
async function readLoopDelayMs({ metricsUrl }: Contestant): Promise<number | undefined> {
  if (metricsUrl === undefined) return undefined;
  const text = await (await fetch(metricsUrl)).text();
  const seconds = /^berth_event_loop_delay_seconds\{quantile="0.999"\} (\S+)$/mu.exec(text)?.[1];
  return Number(seconds) * 1000;
}

/** Of the daemon, its monitors, and what both have started and reaped: the runtime's processes too. */
async function readCpuSeconds(contestant: Contestant): Promise<number> {
  const { daemon, monitors } = await findManagers(contestant);
  return [...daemon, ...monitors].reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
}

/** Begins a turn every `everyMs`; a turn that takes longer delays the next, as kubelet's workers would. */
export async function repeatUntil(
  isOver: () => boolean,
  how: { readonly everyMs: number; readonly interrupted: AbortSignal },
  work: () => Promise<void>,
): Promise<void> {
  while (!isOver()) {
    how.interrupted.throwIfAborted();
    const startedAt = performance.now();
    await work();
    const restMs = startedAt + how.everyMs - performance.now();
    if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
  }
}

async function timed(times: number[], work: () => Promise<unknown>): Promise<void> {
  const startedAt = performance.now();
  await work();
  times.push(performance.now() - startedAt);
}

function nextForEver(items: readonly string[]): () => string {
  let next = 0;
  return () => items[next++ % items.length] ?? "";
}
