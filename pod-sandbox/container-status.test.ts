import { describe, expect, it } from "vitest";
import { endContainer } from "./container-ending.ts";
import { containerStatus, toCriContainerStatus } from "./container-status.ts";
import { inCreated, testCall, testContainer, testSandbox } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";

const created = {
  ...inCreated(testContainer("web", testSandbox("pod"), { labels: { a: "b" }, annotations: { c: "d" } })),
  logPath: "/var/log/pods/web/0.log",
};
const running = { ...created, state: "running", startedAtNs: 5n } as const;
const ending = { startedAtNs: 5n, finishedAtNs: 9n, exitCode: 137, reason: "OOMKilled", message: "too big" };

describe("toCriContainerStatus", () => {
  it("tells what every state has", () => {
    expect(toCriContainerStatus(created)).toMatchObject({
      id: created.id,
      metadata: { name: "web", attempt: 0 },
      state: "CONTAINER_CREATED",
      createdAt: 2n,
      startedAt: 0n,
      image: { image: "busybox" },
      imageRef: "image@digest",
      imageId: "image",
      labels: { a: "b" },
      annotations: { c: "d" },
      logPath: "/var/log/pods/web/0.log",
    });
  });
  it("has no end before there is one", () => {
    for (const container of [created, running]) {
      expect(toCriContainerStatus(container)).not.toHaveProperty("finishedAt");
      expect(toCriContainerStatus(container)).not.toHaveProperty("exitCode");
    }
  });
  it("tells when it started and how it ended", () => {
    expect(toCriContainerStatus(running)).toMatchObject({ state: "CONTAINER_RUNNING", startedAt: 5n });
    expect(toCriContainerStatus(endContainer(running, ending))).toMatchObject({
      state: "CONTAINER_EXITED",
      startedAt: 5n,
      finishedAt: 9n,
      exitCode: 137,
      reason: "OOMKilled",
      message: "too big",
    });
  });
  it("reports 0, not a year of long ago, for one that never ran", () => {
    const never = endContainer(created, { ...ending, startedAtNs: 0n });
    expect(toCriContainerStatus(never)).toMatchObject({ startedAt: 0n });
  });
  it.each([
    [15, "SIGNAL_SIGTERM"],
    [9, "SIGNAL_SIGKILL"],
    [37, "SIGNAL_SIGRTMINPLUS3"],
  ])("names the stop signal in force: %d is %s", (stopSignal, name) => {
    expect(toCriContainerStatus({ ...running, stopSignal }).stopSignal).toBe(name);
  });
});

describe("containerStatus", () => {
  it("tells all that is left of a container whose bundle a reboot has taken", async () => {
    await using host = await openTestHost();
    await host.containers.save(endContainer(running, ending));
    const { status, info } = await containerStatus(testCall(), { containerId: running.id, verbose: true }, host);
    expect(status).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 137 });
    expect(JSON.parse(info?.["info"] ?? "")).toMatchObject({ pid: 0, sandboxID: running.sandboxId });
  });
});
