import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it, onTestFinished, vi } from "vitest";
import { createStatsReader } from "./stats-reader.ts";
import { sumOf } from "./stats-sum.ts";

/** A directory that looks like a cgroup of v2. */
async function makeCgroup() {
  const unified = await mkdtemp(join(tmpdir(), "berth-cgroup-"));
  onTestFinished(() => rm(unified, { recursive: true }));
  const spend = (microseconds: number) => writeFile(join(unified, "cpu.stat"), `usage_usec ${microseconds}\n`);
  await writeFile(join(unified, "memory.current"), "4096\n");
  await writeFile(join(unified, "cgroup.procs"), "1\n2\n");
  await spend(1_000_000);
  return { spend, subject: (id: string) => ({ id, locate: vi.fn(async () => ({ unified, controllers: {} })) }) };
}

it("knows the mean rate since the sample before, whoever sets the clock, and looks for the cgroups once", async () => {
  vi.useFakeTimers({ toFake: ["Date", "hrtime"], now: 1_000_000 });
  onTestFinished(() => void vi.useRealTimers());
  const { spend, subject } = await makeCgroup();
  const one = subject("one");
  const stats = createStatsReader();
  const rate = async () => (await stats.read([one])).get("one")?.usageNanoCores;

  expect(await rate()).toBeUndefined();
  vi.advanceTimersByTime(2000);
  await spend(2_000_000);
  expect(await rate()).toBe(500_000_000n); // one second of two
  vi.advanceTimersByTime(10);
  expect(await rate()).toBe(0n);
  vi.advanceTimersByTime(990);
  await spend(3_000_000);
  expect(await rate()).toBe(1_000_000_000n); // not since the one 10 ms later
  vi.setSystemTime(0);
  vi.advanceTimersByTime(4000);
  await spend(4_000_000);
  expect(await rate()).toBe(250_000_000n);
  expect(one.locate).toHaveBeenCalledTimes(1);
});

it("leaves out what is gone, and starts anew with what it was told to forget", async () => {
  const { subject } = await makeCgroup();
  const stats = createStatsReader();
  const one = subject("one");
  const gone = { id: "gone", locate: async () => ({ unified: "/nowhere", controllers: {} }) };
  const unknown = { id: "unknown", locate: async () => undefined };
  expect([...(await stats.read([gone, one, unknown])).keys()]).toEqual(["one"]);
  stats.forget("one");
  expect((await stats.read([one])).get("one")?.usageNanoCores).toBeUndefined();
  expect(one.locate).toHaveBeenCalledTimes(2);
  expect((await stats.read([])).size).toBe(0);
});

it("adds samples up", async () => {
  const { subject } = await makeCgroup();
  const samples = [...(await createStatsReader().read([subject("a"), subject("b")])).values()];
  expect(sumOf(samples)).toMatchObject({
    cpuUsageNs: 2_000_000_000n,
    usageNanoCores: undefined,
    memory: { usageBytes: 8192n, availableBytes: undefined },
    swap: undefined,
    taskCount: undefined,
    processCount: 4n,
  });
  expect(sumOf([])).toBeUndefined();
});
