import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createFakeRuntime } from "../oci/testing.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { ExitWatch } from "./exit-watch.ts";
import type { RecordStore } from "./record-store.ts";
import { createStopLoops } from "./stop-loop.ts";
import { inCreated, silentLog, testContainer, testSandbox } from "./testing.ts";

const sigterm = 15;
const sigkill = 9;
const created = inCreated(testContainer("web", testSandbox("pod")));
const running: LiveContainer = { ...created, state: "running", startedAtNs: 3n };
const nobodyLeaves = new AbortController().signal;

/** A container whose end is the test's to decide, and the signals it was sent with the seconds they came at. */
function open(container: LiveContainer = running, options: { dieOf?: number } = {}) {
  let record = container;
  const signals: string[] = [];
  const { promise, resolve: end } = Promise.withResolvers<void>();
  const startedAtMs = performance.now();
  const runtime = {
    ...createFakeRuntime("crun"),
    async kill(_id: string, _init: unknown, signal: number) {
      signals.push(`${signal} after ${Math.round((performance.now() - startedAtMs) / 100) / 10} s`);
      if (signal === options.dieOf) end();
    },
  };
  const containers = {
    get: (id: string) => (id === container.id ? record : undefined),
    async update(_id: string, change: (current: LiveContainer) => LiveContainer) {
      record = change(record);
    },
  };
  const loops = createStopLoops({
    containers: containers as unknown as RecordStore<Container>,
    runtimes: new Map([["crun", runtime]]),
    exits: { ended: () => promise } as unknown as ExitWatch,
    log: silentLog,
  });
  return { loops, signals, end, record: () => record };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("createStopLoops", () => {
  it("sends the stop signal and is content when the container ends of it", async () => {
    const { loops, signals } = open(running, { dieOf: sigterm });
    await loops.stop(running.id, 30_000, nobodyLeaves);
    expect(signals).toEqual(["15 after 0 s"]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("tells of the kill once the grace period is over, and not before", async () => {
    const { loops, end } = open(running);
    const stopped = loops.stop(running.id, 2_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(1_999);
    expect(loops.isKilling(running.id)).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(loops.isKilling(running.id)).toBe(true);
    end();
    await stopped;
    expect(loops.isKilling(running.id)).toBe(false);
  });

  it("kills at the deadline", async () => {
    const { loops, signals } = open(running, { dieOf: sigkill });
    const stopped = loops.stop(running.id, 2_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(2_000);
    await stopped;
    expect(signals).toEqual(["15 after 0 s", "9 after 2 s"]);
  });

  it.each([
    ["with no grace", running, 0],
    ["that never ran", created, 30_000],
  ])("kills a container %s at once", async (_, container, graceMs) => {
    const { loops, signals } = open(container, { dieOf: sigkill });
    await loops.stop(container.id, graceMs, nobodyLeaves);
    expect(signals).toEqual(["9 after 0 s"]);
  });

  it("lets a later call bring the deadline forward", async () => {
    const { loops, signals } = open(running, { dieOf: sigkill });
    const first = loops.stop(running.id, 60_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(1_000);
    const second = loops.stop(running.id, 3_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(3_000);
    await Promise.all([first, second]);
    expect(signals).toEqual(["15 after 0 s", "9 after 4 s"]);
  });

  it("lets no later call put the deadline off", async () => {
    const { loops, signals } = open(running, { dieOf: sigkill });
    const first = loops.stop(running.id, 2_000, nobodyLeaves);
    const second = loops.stop(running.id, 60_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(2_000);
    await Promise.all([first, second]);
    expect(signals).toEqual(["15 after 0 s", "9 after 2 s"]);
  });

  it("goes on when its caller leaves", async () => {
    const { loops, signals } = open(running, { dieOf: sigkill });
    const caller = new AbortController();
    const stopped = loops.stop(running.id, 2_000, caller.signal);
    caller.abort(new Error("the caller went away"));
    await expect(stopped).rejects.toThrow("the caller went away");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(signals).toEqual(["15 after 0 s", "9 after 2 s"]);
  });

  it("sends SIGKILL again and again, less and less often, until the container ends", async () => {
    const { loops, signals, end } = open();
    const stopped = loops.stop(running.id, 0, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(300_000);
    const count = signals.length;
    expect(count).toBeGreaterThan(12);
    expect(count).toBeLessThan(20);
    end();
    await stopped;
    await vi.advanceTimersByTimeAsync(300_000);
    expect(signals).toHaveLength(count);
  });

  it("keeps a grace period of years within what timers can hold", async () => {
    const { loops, signals, end } = open();
    const stopped = loops.stop(running.id, Number(2n ** 63n - 1n) * 1000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(86_400_000);
    expect(signals).toEqual(["15 after 0 s"]);
    end();
    await stopped;
  });

  it("writes the deadline down for the next daemon, but not of a container that ends at once", async () => {
    const quick = open(running, { dieOf: sigterm });
    await quick.loops.stop(running.id, 30_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(quick.record().killAtNs).toBeUndefined();

    const { loops, record } = open(running);
    const killAtNs = process.hrtime.bigint() + 30_000_000_000n;
    void loops.stop(running.id, 30_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(record().killAtNs).toBe(killAtNs);
    void loops.stop(running.id, 5_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(record().killAtNs).toBe(killAtNs - 24_000_000_000n);
  });

  it("goes on with a stop of the daemon before: no second signal, and the deadline stands", async () => {
    const stopping = { ...running, killAtNs: process.hrtime.bigint() + 4_000_000_000n };
    const { loops, signals } = open(stopping, { dieOf: sigkill });
    loops.resume(stopping);
    const again = loops.stop(running.id, 30_000, nobodyLeaves);
    await vi.advanceTimersByTimeAsync(4_000);
    await again;
    expect(signals).toEqual(["9 after 4 s"]);
  });

  it("kills at once where the deadline has passed in the daemon's absence", async () => {
    const stopping = { ...running, killAtNs: process.hrtime.bigint() - 1n };
    const { loops, signals } = open(stopping, { dieOf: sigkill });
    loops.resume(stopping);
    await vi.advanceTimersByTimeAsync(0);
    expect(signals).toEqual(["9 after 0 s"]);
  });

  it("resumes nothing that was not begun", async () => {
    const { loops, signals } = open(running);
    loops.resume(running);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(signals).toEqual([]);
  });

  it("begins anew after a loop has failed", async () => {
    const { loops, signals, end } = open();
    const caller = AbortSignal.abort(new Error("gone before it began"));
    await expect(loops.stop(running.id, 0, caller)).rejects.toThrow("gone before it began");
    end();
    await loops.stop(running.id, 0, nobodyLeaves);
    expect(signals.length).toBeGreaterThan(0);
  });

  it("has nothing to do for a container that is not there", async () => {
    const { loops, signals } = open();
    await loops.stop("f".repeat(64), 0, nobodyLeaves);
    expect(signals).toEqual([]);
  });
});
