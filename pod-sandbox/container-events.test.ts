import { setImmediate } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { Code } from "../cri-api/index.ts";
import type { cri, Init } from "../cri-api/index.ts";
import { createClock } from "./clock.ts";
import { createContainerEvents } from "./container-events.ts";
import type { ContainerEvents } from "./container-events.ts";
import { endContainer } from "./container-ending.ts";
import { inCreated, openTestRecords, testContainer, testId, testSandbox } from "./testing.ts";

type Event = Init<cri.ContainerEventResponse>;

async function openEvents(limit?: number) {
  const records = await openTestRecords();
  onTestFinished(() => records[Symbol.asyncDispose]());
  const events = createContainerEvents({ records, clock: createClock(), ...(limit === undefined ? {} : { limit }) });
  return { ...records, events };
}

/** Keeps what a subscriber is told, as soon as it is told. */
function listen(events: ContainerEvents, signal = new AbortController().signal): { readonly heard: Event[] } {
  const heard: Event[] = [];
  const stream = events.subscribe(signal);
  void (async () => {
    for await (const event of stream) heard.push(event);
  })();
  return { heard };
}

function told(events: readonly Event[], id: string): readonly string[] {
  return events.filter((event) => event.containerId === id).map((event) => `${event.containerEventType}`.slice(10, -6));
}

const ending = { startedAtNs: 3n, finishedAtNs: 4n, exitCode: 0, reason: "Completed", message: "" };

/** A pod with one container, from their making to their removal. */
async function live({ sandboxes, containers }: Awaited<ReturnType<typeof openEvents>>, name: string) {
  const sandbox = testSandbox(name);
  const container = inCreated(testContainer(`${name}-c`, sandbox));
  const ids = { sandbox: sandbox.id, container: container.id };
  await sandboxes.save(sandbox);
  await sandboxes.save({ ...sandbox, state: "ready", ips: ["10.0.0.2"] });
  await containers.save(testContainer(`${name}-c`, sandbox));
  await containers.save(container);
  await containers.save({ ...container, state: "running", startedAtNs: 3n });
  await containers.save({ ...container, state: "running", startedAtNs: 3n, imageRef: "no step" });
  await containers.save(endContainer(container, ending));
  await sandboxes.save({ ...sandbox, state: "not-ready", ips: ["10.0.0.2"] });
  await sandboxes.save({ ...sandbox, state: "stopped", ips: ["10.0.0.2"] });
  await containers.remove(container.id);
  await sandboxes.remove(sandbox.id);
  return ids;
}

describe("createContainerEvents", () => {
  it("tells each step of sandboxes and containers once, in order", async () => {
    const parts = await openEvents();
    const { heard } = listen(parts.events);
    const ids = await live(parts, "web");
    await setImmediate();
    const steps = ["CREATED", "STARTED", "STOPPED", "DELETED"];
    expect(told(heard, ids.sandbox)).toEqual(steps);
    expect(told(heard, ids.container)).toEqual(steps);
    const times = heard.map(({ createdAt }) => createdAt ?? 0n);
    expect(times).toEqual(times.toSorted((a, b) => Number(a - b)));
    expect(new Set(times).size).toBe(heard.length);
  });

  it("shows the pod as it is at each step, also when it is deleted", async () => {
    const parts = await openEvents();
    const { heard } = listen(parts.events);
    const ids = await live(parts, "web");
    await setImmediate();
    for (const event of heard) expect(event.podSandboxStatus?.metadata?.uid).toBe("uid-web");
    const shown = heard
      .filter(({ containerId }) => containerId === ids.container)
      .map(({ podSandboxStatus, containersStatuses }) => [
        podSandboxStatus?.state,
        ...(containersStatuses ?? []).map((status) => status?.state),
      ]);
    expect(shown).toEqual([
      ["SANDBOX_READY", "CONTAINER_CREATED"],
      ["SANDBOX_READY", "CONTAINER_RUNNING"],
      ["SANDBOX_READY", "CONTAINER_EXITED"],
      ["SANDBOX_NOTREADY"],
    ]);
    expect(heard.at(-1)).toMatchObject({ containerId: ids.sandbox, podSandboxStatus: { state: "SANDBOX_NOTREADY" } });
  });

  it("lists the containers of all sandboxes of a pod, and of no other pod", async () => {
    const { sandboxes, containers, events } = await openEvents();
    const metadata = { name: "web", namespace: "default", uid: "u1" };
    const first = testSandbox("first", { metadata });
    const second = testSandbox("second", { metadata: { ...metadata, attempt: 1 } });
    const other = testSandbox("other", { metadata: { ...metadata, uid: "u2" } });
    const { heard } = listen(events);
    for (const [name, sandbox] of Object.entries({ first, other, second })) {
      await sandboxes.save({ ...sandbox, state: "ready", ips: [] });
      await containers.save(inCreated(testContainer(`${name}-c`, sandbox)));
    }
    await setImmediate();
    expect(heard.at(-1)?.podSandboxStatus?.id).toBe(second.id);
    const listed = heard.at(-1)?.containersStatuses?.map((status) => status?.id);
    expect(listed).toEqual([testId("first-c"), testId("second-c")]);
  });

  it("says nothing of a create that was undone", async () => {
    const { sandboxes, events } = await openEvents();
    const { heard } = listen(events);
    await sandboxes.save(testSandbox("web"));
    await sandboxes.remove(testId("web"));
    await setImmediate();
    expect(heard).toEqual([]);
  });

  it("ends the stream of a subscriber that is too far behind, and no other's", async () => {
    const parts = await openEvents(3);
    const slow = parts.events.subscribe(new AbortController().signal)[Symbol.asyncIterator]();
    const { heard } = listen(parts.events);
    await live(parts, "web");
    await setImmediate();
    expect(heard).toHaveLength(8);
    for (const expected of heard.slice(0, 3)) expect((await slow.next()).value).toBe(expected);
    await expect(slow.next()).rejects.toMatchObject({ code: Code.DataLoss });
    expect(await slow.next()).toEqual({ done: true, value: undefined });
  });

  it("ends when its signal aborts, with nothing left in the queue", async () => {
    const parts = await openEvents();
    const leaving = new AbortController();
    const stream = parts.events.subscribe(leaving.signal)[Symbol.asyncIterator]();
    const waiting = stream.next();
    leaving.abort();
    expect(await waiting).toEqual({ done: true, value: undefined });
    await live(parts, "web");
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });
});
