import assert from "node:assert/strict";
import { readdir, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, type cri } from "../../../cri-api/index.ts";
import { podConfig } from "../../harness/configs.ts";
import { openStream } from "../../harness/cri-stream.ts";
import type { Report } from "../../harness/report.ts";
import { runCommand } from "../../harness/run-command.ts";
import { waitUntil } from "../../harness/wait-until.ts";
import { largeImage } from "../stand-ins.ts";
import {
  cgroupParent,
  mebibyte,
  type Node,
  patienceMs,
  remove,
  shell,
  socketPath,
  startContainer,
  statusOf,
} from "./node.ts";
import { layersDirectory } from "./reboot.ts";

/** Far less than a jump, far more than anything takes here. */
const slackMs = 30 * 60_000;
const ticking = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 1; done";
const stubborn = "trap '' TERM; while :; do sleep 1; done";

/** The system's clock, in the hands of a time server that errs. */
interface SystemClock extends AsyncDisposable {
  /** So far from the true time. */
  setOff(hours: number): Promise<void>;
}

function takeClock(): SystemClock {
  const bootedAtMs = Date.now() - performance.now();
  const setOff = async (hours: number): Promise<void> => {
    const seconds = (bootedAtMs + performance.now()) / 1000 + hours * 3600;
    await runCommand(["date", "--set", `@${seconds.toFixed(3)}`]);
  };
  return { setOff, [Symbol.asyncDispose]: () => setOff(0) };
}

/** Milliseconds that the work takes, whatever the system's clock says. */
async function timed(work: Promise<unknown>): Promise<number> {
  const startedAtMs = performance.now();
  await work;
  return performance.now() - startedAtMs;
}

function assertAbout(ns: bigint, what: string): void {
  const offMs = Math.abs(Number(ns / 1_000_000n) - Date.now());
  assert.ok(offMs < slackMs, `${what} is ${Math.round(offMs / 1000)} s off the system's clock`);
}

/** Hours forward, then twice as many back, while containers run: nothing ends early, hangs, or is told wrong. */
export async function checkClock(node: Node, report: Report): Promise<void> {
  await using clock = takeClock();
  const containerId = await startContainer(node, "ticking", { script: ticking });
  const before = await statusOf(node, containerId);
  const pods = [await runAttempt(node, 0)];
  for (const [where, hours] of [
    ["ahead", 5],
    ["back", -5],
  ] as const) {
    const jump = (): Promise<void> => clock.setOff(hours);
    await report.check(`${where}: stops and commands have the time that they were given`, () =>
      checkDeadlines(node, jump),
    );
    await clock.setOff(0);
    await report.check(`${where}: a pull goes on`, () => checkPull(node, jump));
    await clock.setOff(0);
    await report.check(`${where}: events keep their order`, () => checkEvents(node, jump));
    await report.check(`${where}: what ran is as it was`, async () => {
      assert.deepEqual(await statusOf(node, containerId), before);
    });
    await report.check(`${where}: statistics are of now`, () => checkFreshness(node, containerId));
    await report.check(`${where}: an end has its code and its time`, () => checkEnd(node));
    await report.check(`${where}: a further attempt at a pod is its youngest`, async () => {
      pods.push(await runAttempt(node, pods.length));
      await checkOrder(node, pods);
    });
    await report.check(`${where}: the log has every line once, and is reopened`, () => checkLog(node, containerId));
    await report.check(`${where}: a stop goes on after a restart of the service`, async () => {
      await clock.setOff(0);
      await checkRestart(node, jump);
      assert.deepEqual(await statusOf(node, containerId), before);
    });
  }
  for (const podSandboxId of pods) await node.client.call("RemovePodSandbox", { podSandboxId });
  await remove(node, containerId);
}

async function checkDeadlines(node: Node, jump: () => Promise<void>): Promise<void> {
  const containerId = await startContainer(node, "stubborn", { script: stubborn });
  const other = await startContainer(node, "other");
  const exec = (line: string, timeout: bigint): Promise<cri.ExecSyncResponse> =>
    node.client.call("ExecSync", { containerId: other, cmd: ["sh", "-c", line], timeout });
  const works = [
    timed(node.client.call("StopContainer", { containerId, timeout: 20n })),
    timed(assert.rejects(exec("sleep 1000", 20n), { code: Code.DeadlineExceeded })),
    timed(exec("sleep 20; echo done", 600n).then(({ stdout }) => assert.equal(stdout.toString(), "done\n"))),
  ];
  await sleep(5_000);
  await jump();
  for (const tookMs of await Promise.all(works)) {
    assert.ok(tookMs >= 20_000 && tookMs < patienceMs, `took ${Math.round(tookMs)} ms instead of twenty seconds`);
  }
  assert.equal((await statusOf(node, containerId)).exitCode, 137);
  await remove(node, containerId);
  await remove(node, other);
}

async function checkPull(node: Node, jump: () => Promise<void>): Promise<void> {
  const before = (await readdir(layersDirectory)).length;
  let isPulled = false;
  const pull = node.client.call("PullImage", { image: { image: largeImage } }).finally(() => (isPulled = true));
  const isOnItsWay = async (): Promise<true | undefined> =>
    (await readdir(layersDirectory)).length > before ? true : undefined;
  await waitUntil("a layer on its way", isOnItsWay, patienceMs);
  assert.equal(isPulled, false, "the pull was over before the clock could be set; the image is too small");
  await jump();
  const { imageRef } = await pull;
  await node.client.call("RemoveImage", { image: { image: imageRef } });
  await waitUntil("the layers' end", async () => ((await isOnItsWay()) ? undefined : true), patienceMs);
}

async function checkEvents(node: Node, jump: () => Promise<void>): Promise<void> {
  const events: cri.ContainerEventResponse[] = [];
  using open = openStream(socketPath, "GetContainerEvents");
  open.stream.on("data", (event: cri.ContainerEventResponse) => events.push(event));
  open.stream.on("error", () => undefined);
  await open.isOpen;
  for (const set of [async () => undefined, jump]) {
    await set();
    const containerId = await startContainer(node, "told-of");
    await remove(node, containerId);
    const steps = (): readonly string[] =>
      events
        .filter((event) => event.containerId === containerId)
        .map((event) => event.containerEventType.slice(10, -6));
    await waitUntil("its events", async () => (steps().length >= 4 ? true : undefined), patienceMs);
    assert.deepEqual(steps(), ["CREATED", "STARTED", "STOPPED", "DELETED"]);
  }
  const times = events.map(({ createdAt }) => createdAt);
  assert.deepEqual(
    times,
    [...new Set(times)].sort((a, b) => (a < b ? -1 : 1)),
  );
}

/** The same for how much is written, which is not measured anew at every call. */
async function checkFreshness(node: Node, containerId: string): Promise<void> {
  const read = async (): Promise<cri.ContainerStats> => {
    const { stats } = await node.client.call("ContainerStats", { containerId });
    assert.ok(stats);
    return stats;
  };
  const writtenBefore = (await read()).writableLayer?.usedBytes?.value ?? 0n;
  assert.equal((await shell(node, containerId, "head -c 8m /dev/zero >> /written")).exitCode, 0);
  await sleep(1_000);
  const { cpu } = await read();
  assert.ok(cpu);
  assertAbout(cpu.timestamp, "a sample");
  const rate = Number(cpu.usageNanoCores?.value ?? -1);
  assert.ok(rate > 0 && rate < 4e9, `it uses ${rate} nanocores`);
  const isCounted = async (): Promise<true | undefined> => {
    const { writableLayer } = await read();
    const grown = (writableLayer?.usedBytes?.value ?? 0n) - writtenBefore;
    if (!writableLayer || grown < BigInt(8 * mebibyte)) return undefined;
    assertAbout(writableLayer.timestamp, "what is known of the writable layer");
    return true;
  };
  await waitUntil("what was written to be counted", isCounted, patienceMs);
}

async function checkEnd(node: Node): Promise<void> {
  const containerId = await startContainer(node, "job", { script: "sleep 1; exit 3" });
  const isOver = async (): Promise<cri.ContainerStatus | undefined> => {
    const status = await statusOf(node, containerId);
    return status.state === "CONTAINER_EXITED" ? status : undefined;
  };
  const { exitCode, createdAt, startedAt, finishedAt } = await waitUntil("the job's end", isOver, patienceMs);
  assert.equal(exitCode, 3);
  assert.ok(finishedAt > startedAt);
  for (const [what, time] of Object.entries({ createdAt, startedAt, finishedAt })) assertAbout(time, what);
  await remove(node, containerId);
}

/** Another sandbox of one pod, after the one before has been stopped. */
async function runAttempt(node: Node, attempt: number): Promise<string> {
  const config = podConfig(node.workspace, "attempts", {
    metadata: { name: "attempts", uid: "uid-attempts", namespace: "e2e", attempt },
    linux: { cgroupParent },
  });
  const { podSandboxId } = await node.client.call("RunPodSandbox", { config, runtimeHandler: node.runtimeHandler });
  const pod = { ...node, pod: { id: podSandboxId, config } };
  await startContainer(pod, "main");
  await node.client.call("StopPodSandbox", { podSandboxId });
  return podSandboxId;
}

async function checkOrder(node: Node, pods: readonly string[]): Promise<void> {
  const { items } = await node.client.call("ListPodSandbox");
  const { containers } = await node.client.call("ListContainers");
  const byAge = (a: { createdAt: bigint }, b: { createdAt: bigint }): number => (a.createdAt < b.createdAt ? -1 : 1);
  const isOurs = (id: string): boolean => pods.includes(id);
  assert.deepEqual(
    items
      .filter(({ id }) => isOurs(id))
      .toSorted(byAge)
      .map(({ id }) => id),
    pods,
  );
  assert.deepEqual(
    containers
      .filter(({ podSandboxId }) => isOurs(podSandboxId))
      .toSorted(byAge)
      .map(({ podSandboxId }) => podSandboxId),
    pods,
  );
}

async function checkLog(node: Node, containerId: string): Promise<void> {
  const log = path.join(node.workspace.logs, "checks", "ticking.log");
  const ticksIn = async (file: string): Promise<readonly number[]> => {
    const lines = (await readFile(file, "utf8")).split("\n").slice(0, -1);
    return lines.map((line) => Number(/^\d{4}-\d\d-\d\dT\S+ stdout F tick (\d+)$/u.exec(line)?.[1] ?? line));
  };
  await rename(log, `${log}.old`);
  await node.client.call("ReopenContainerLog", { containerId });
  await waitUntil(
    "a line of the new log",
    async () => ((await ticksIn(log)).length > 1 ? true : undefined),
    patienceMs,
  );
  const old = await ticksIn(`${log}.old`);
  const ticks = [...old, ...(await ticksIn(log))];
  const first = ticks[0] ?? 0;
  assert.deepEqual(
    ticks,
    ticks.map((_, index) => first + index),
  );
}

async function checkRestart(node: Node, jump: () => Promise<void>): Promise<void> {
  const containerId = await startContainer(node, "stubborn", { script: stubborn });
  const startedAtMs = performance.now();
  const stop = node.client.call("StopContainer", { containerId, timeout: 90n }).catch(() => undefined);
  await sleep(5_000);
  await jump();
  await runCommand(["systemctl", "restart", "berth.service"], { timeoutMs: patienceMs });
  await stop;
  const isOver = async (): Promise<cri.ContainerStatus | undefined> => {
    const status = await statusOf(node, containerId);
    return status.state === "CONTAINER_EXITED" ? status : undefined;
  };
  const { exitCode, startedAt, finishedAt } = await waitUntil("the end of what was being stopped", isOver, patienceMs);
  const tookMs = performance.now() - startedAtMs;
  assert.ok(tookMs >= 90_000, `it was killed after ${Math.round(tookMs)} ms instead of ninety seconds`);
  assert.equal(exitCode, 137);
  if (finishedAt > startedAt) assertAbout(finishedAt, "its end");
  else assert.equal(finishedAt, startedAt, "it ends before it starts"); // where the clock was set back meanwhile
  await remove(node, containerId);
}
