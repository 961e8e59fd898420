import { expect, test } from "vitest";

import { createSharedWork } from "./shared-work.ts";

const never = new AbortController().signal;

test("callers of one key share one run and its result", async () => {
  const shared = createSharedWork<string>();
  const { promise, resolve } = Promise.withResolvers<string>();
  let runs = 0;
  const start = (): Promise<string> => {
    runs += 1;
    return promise;
  };
  const callers = [1, 2, 3].map(() => shared.join("key", never, start));
  resolve("done");
  expect(await Promise.all(callers)).toEqual(["done", "done", "done"]);
  expect(runs).toBe(1);
});

test("a caller can leave alone; the work goes on for the others", async () => {
  const shared = createSharedWork<string>();
  const { promise, resolve } = Promise.withResolvers<string>();
  const leaver = new AbortController();
  let workSignal = never;
  const start = (signal: AbortSignal): Promise<string> => {
    workSignal = signal;
    return promise;
  };
  const left = shared.join("key", leaver.signal, start);
  const stays = shared.join("key", never, start);
  leaver.abort(new Error("left"));
  await expect(left).rejects.toThrow("left");
  expect(workSignal.aborted).toBe(false);
  resolve("done");
  expect(await stays).toBe("done");
});

test("the work is aborted when the last caller has left, and a later caller waits for its end", async () => {
  const shared = createSharedWork<string>();
  const cleanup = Promise.withResolvers<void>();
  const leaver = new AbortController();
  const events: string[] = [];
  const left = shared.join("key", leaver.signal, async (signal) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    events.push("aborted");
    await cleanup.promise;
    events.push("cleaned up");
    throw signal.reason;
  });
  leaver.abort(new Error("left"));
  await expect(left).rejects.toThrow("left");
  const later = shared.join("key", never, async () => {
    events.push("second run");
    return "fresh";
  });
  cleanup.resolve();
  expect(await later).toBe("fresh");
  expect(events).toEqual(["aborted", "cleaned up", "second run"]);
});

test("a failure reaches every caller, and the next one starts anew", async () => {
  const shared = createSharedWork<string>();
  const failing = [1, 2].map(() => shared.join("key", never, () => Promise.reject(new Error("no"))));
  for (const caller of failing) await expect(caller).rejects.toThrow("no");
  expect(await shared.join("key", never, async () => "yes")).toBe("yes");
});

test("disposing waits for what it aborts", async () => {
  const shared = createSharedWork<void>();
  let isEnded = false;
  const work = shared.join("key", never, async (signal) => {
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    isEnded = true;
    throw new Error("aborted");
  });
  const settled = expect(work).rejects.toThrow("aborted");
  await shared[Symbol.asyncDispose]();
  expect(isEnded).toBe(true);
  await settled;
});
