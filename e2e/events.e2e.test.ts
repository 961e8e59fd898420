import { expect, onTestFinished, test } from "vitest";
import { Code, type cri } from "../cri-api/index.ts";
import { openStream } from "./harness/cri-stream.ts";
import { useDaemon } from "./harness/fixture.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

/** Subscribes, and keeps what comes. */
async function listen(): Promise<readonly cri.ContainerEventResponse[]> {
  const heard: cri.ContainerEventResponse[] = [];
  const open = openStream(berth.daemon.socketPath, "GetContainerEvents");
  onTestFinished(() => open[Symbol.dispose]());
  open.stream.on("data", (event: cri.ContainerEventResponse) => heard.push(event));
  open.stream.on("error", () => undefined);
  await open.isOpen;
  return heard;
}

function stepsOf(events: readonly cri.ContainerEventResponse[], id: string): readonly string[] {
  return events.filter(({ containerId }) => containerId === id).map((event) => event.containerEventType.slice(10, -6));
}

const wholeLife = ["CREATED", "STARTED", "STOPPED", "DELETED"];

function waitForWholeLife(events: readonly cri.ContainerEventResponse[], id: string): Promise<boolean> {
  return waitUntil(`all events of ${id}`, async () => stepsOf(events, id).length >= wholeLife.length || undefined);
}

test("pods and containers are told of in order, with the status kubelet's cache needs", async () => {
  const [events, others] = [await listen(), await listen()];
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod, { command: ["sh", "-c", "exit 3"] });
  await berth.waitForExit(containerId);
  await berth.call("RemoveContainer", { containerId });
  await berth.removePod(pod.id);
  await waitForWholeLife(events, pod.id);
  expect(stepsOf(events, containerId)).toEqual(wholeLife);
  expect(stepsOf(events, pod.id)).toEqual(wholeLife);
  expect(others).toEqual(events);

  for (const { podSandboxStatus } of events) expect(podSandboxStatus?.metadata).toMatchObject({ uid: "uid-pod0" });
  const stopped = events.find(
    (event) => event.containerId === containerId && event.containerEventType.includes("STOP"),
  );
  expect(stopped?.containersStatuses).toMatchObject([{ id: containerId, state: "CONTAINER_EXITED", exitCode: 3 }]);
  const running = events.find(
    (event) => event.containerId === containerId && event.containerEventType.includes("START"),
  );
  expect(running?.podSandboxStatus).toMatchObject({
    state: "SANDBOX_READY",
    network: { ip: expect.stringMatching(/./u) },
  });
  expect(events.at(-1)?.podSandboxStatus).toMatchObject({ id: pod.id, state: "SANDBOX_NOTREADY" });
  for (const [index, { createdAt }] of events.entries())
    expect(createdAt).toBeGreaterThan(events[index - 1]?.createdAt ?? 0n);
});

test("containers that end at once have started first, many at a time", async () => {
  const events = await listen();
  const pod = await berth.runPod();
  const ids = await Promise.all(Array.from({ length: 8 }, () => berth.startContainer(pod, { command: ["/bin/true"] })));
  await Promise.all(ids.map((id) => berth.waitForExit(id)));
  await Promise.all(ids.map((containerId) => berth.call("RemoveContainer", { containerId })));
  for (const id of ids) {
    await waitForWholeLife(events, id);
    expect(stepsOf(events, id)).toEqual(wholeLife);
  }
});

test("a status says when it was taken, on the events' clock, and shows the pod's containers", async () => {
  const events = await listen();
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  const answer = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
  expect(answer.containersStatuses).toEqual([await berth.containerStatus(containerId)]);
  await waitUntil("the start", async () => stepsOf(events, containerId).includes("STARTED") || undefined);
  expect(answer.timestamp).toBeGreaterThan(events.at(-1)?.createdAt ?? 0n);
});

test("a subscriber that does not read holds nobody up, and what it missed waits for it", async () => {
  const slow = openStream(berth.daemon.socketPath, "GetContainerEvents");
  onTestFinished(() => slow[Symbol.dispose]());
  slow.stream.pause();
  await slow.isOpen;
  const events = await listen();
  const blob = "x".repeat(200_000); // each event fills the stream's window soon
  const pod = await berth.runPod({ config: { annotations: { blob } } });
  const containerId = await berth.createContainer(pod, { annotations: { blob } });
  await berth.call("RemoveContainer", { containerId });
  await berth.removePod(pod.id);
  await waitForWholeLife(events, pod.id); // the slow one's unread megabytes do not matter
  const seen: cri.ContainerEventResponse[] = [];
  slow.stream.on("data", (event: cri.ContainerEventResponse) => seen.push(event));
  slow.stream.resume();
  await waitUntil("the slow one's events", async () => stepsOf(seen, pod.id).length === 4 || undefined);
  expect(seen).toEqual(events);
});

test("the stream ends with a status when the daemon does", async () => {
  const open = openStream(berth.daemon.socketPath, "GetContainerEvents");
  onTestFinished(() => open[Symbol.dispose]());
  const ended = new Promise((resolve) => open.stream.once("error", resolve));
  open.stream.resume();
  await open.isOpen;
  expect(await berth.daemon.stop("SIGTERM")).toBe(0);
  expect(await ended).toMatchObject({ code: Code.Unavailable });
  await berth.daemon.start();
});
