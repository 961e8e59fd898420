import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { listContainers } from "./container-list.ts";
import { listPodSandbox } from "./sandbox-list.ts";
import { inCreated, testCall, testContainer, testId, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const labels = { app: "web", tier: "front" };
const pods = [
  { ...testSandbox("one", { labels }), state: "ready", ips: [] },
  { ...testSandbox("two", { labels: { app: "web" } }), state: "not-ready", ips: [] },
  { ...testSandbox("three"), state: "stopped", ips: [] },
] as const;
const containers = [
  { ...inCreated(testContainer("c1", pods[0], { labels })), state: "running", startedAtNs: 3n },
  inCreated(testContainer("c2", pods[0], { labels: { app: "web" } })),
  inCreated(testContainer("c3", pods[1])),
] as const;

let host: TestHost;
beforeAll(async () => {
  host = await openTestHost();
  for (const pod of [...pods, testSandbox("half")]) await host.sandboxes.save(pod);
  for (const container of [...containers, testContainer("c4", pods[0])]) await host.containers.save(container);
});
afterAll(() => host[Symbol.asyncDispose]());

interface Named {
  readonly metadata?: { readonly name?: string | null | undefined } | null | undefined;
}
const nameOf = (object: Named | null | undefined): string => object?.metadata?.name ?? "";

async function podsWith(filter: object | null): Promise<readonly string[]> {
  const all = { id: "", state: null, labelSelector: {} };
  const { items } = await listPodSandbox(testCall(), { filter: filter && { ...all, ...filter } }, host);
  return (items ?? []).map(nameOf);
}

async function containersWith(filter: object | null): Promise<readonly string[]> {
  const all = { id: "", state: null, podSandboxId: "", labelSelector: {} };
  const { containers } = await listContainers(testCall(), { filter: filter && { ...all, ...filter } }, host);
  return (containers ?? []).map(nameOf);
}

describe("ListPodSandbox", () => {
  it.each([
    ["nothing", null, ["one", "two", "three"]],
    ["an empty filter", {}, ["one", "two", "three"]],
    ["an id", { id: testId("two") }, ["two"]],
    ["the beginning of an id", { id: testId("one").slice(0, 6) }, ["one"]],
    ["an id that is nobody's", { id: "ffff" }, []],
    ["the id of one in creation", { id: testId("half") }, []],
    ["readiness", { state: { state: "SANDBOX_READY" } }, ["one"]],
    ["unreadiness", { state: { state: "SANDBOX_NOTREADY" } }, ["two", "three"]],
    ["a label", { labelSelector: { app: "web" } }, ["one", "two"]],
    ["all of its labels", { labelSelector: labels }, ["one"]],
    ["a label with another value", { labelSelector: { app: "" } }, []],
    ["a label that objects inherit", { labelSelector: { toString: "" } }, []],
    ["several things at once", { id: testId("one"), state: { state: "SANDBOX_NOTREADY" } }, []],
  ])("by %s", async (_, filter, names) => {
    expect(await podsWith(filter)).toEqual(names);
  });
});

describe("ListContainers", () => {
  it.each([
    ["nothing", null, ["c1", "c2", "c3"]],
    ["an id", { id: testId("c2") }, ["c2"]],
    [
      "the beginning of an id and of its pod's",
      { id: testId("c2").slice(0, 4), podSandboxId: testId("one").slice(0, 6) },
      ["c2"],
    ],
    ["a pod", { podSandboxId: testId("one") }, ["c1", "c2"]],
    ["a pod and a container of another", { id: testId("c3"), podSandboxId: testId("one") }, []],
    ["a state", { state: { state: "CONTAINER_CREATED" } }, ["c2", "c3"]],
    ["a state and labels", { state: { state: "CONTAINER_CREATED" }, labelSelector: { app: "web" } }, ["c2"]],
    ["the id of one in creation", { id: testId("c4") }, []],
  ])("by %s", async (_, filter, names) => {
    expect(await containersWith(filter)).toEqual(names);
  });

  it("shows every record in its latest state, though it is asked for each time", async () => {
    const listed = async (): Promise<unknown> =>
      (await listContainers(testCall(), { filter: null }, host)).containers?.find(({ id }) => id === testId("c2"))
        ?.state;
    expect(await listed()).toBe("CONTAINER_CREATED");
    await host.containers.save({ ...containers[1], state: "running", startedAtNs: 4n });
    expect(await listed()).toBe("CONTAINER_RUNNING");
  });
});
