import { describe, expect, it, vi } from "vitest";
import { untilAborted } from "../native/index.ts";
import { createCreations } from "./creations.ts";
import { testCall } from "./testing.ts";

const key = { name: "web_default_u1_0", group: "pod sandboxes" };

describe("createCreations", () => {
  it("lets a retry with the same name join the work that is running", async () => {
    const creations = createCreations(60_000);
    const { promise, resolve } = Promise.withResolvers<string>();
    const work = vi.fn(() => promise);
    const first = creations.join(testCall(), key, work);
    const second = creations.join(testCall(), key, work);
    resolve("id-1");
    expect(await first).toBe("id-1");
    expect(await second).toBe("id-1");
    expect(work).toHaveBeenCalledTimes(1);
  });

  it("does not stop the work when its caller gives up, and hands the result to the retry", async () => {
    const creations = createCreations(60_000);
    const { promise, resolve } = Promise.withResolvers<string>();
    const caller = new AbortController();
    let seen: AbortSignal | undefined;
    const first = creations.join(testCall(caller.signal), key, (signal) => {
      seen = signal;
      return promise;
    });
    caller.abort(new Error("client went away"));
    await expect(first).rejects.toThrow("client went away");
    expect(seen?.aborted).toBe(false);
    const retry = creations.join(testCall(), key, () => Promise.reject(new Error("began twice")));
    resolve("id-1");
    expect(await retry).toBe("id-1");
  });

  it("begins anew after the work has failed", async () => {
    const creations = createCreations(60_000);
    await expect(creations.join(testCall(), key, () => Promise.reject(new Error("no network")))).rejects.toThrow(
      "no network",
    );
    expect(await creations.join(testCall(), key, () => Promise.resolve("id-2"))).toBe("id-2");
  });

  it("abandons only the creates of the group, and waits until they are undone", async () => {
    const creations = createCreations(60_000);
    const undone: string[] = [];
    const endless = (name: string) => (signal: AbortSignal) =>
      untilAborted(new Promise<string>(() => undefined), signal).finally(() => undone.push(name));
    const mine = creations.join(testCall(), { name: "a", group: "pod-1" }, endless("a"));
    const other = creations.join(testCall(), { name: "b", group: "pod-2" }, endless("b"));
    mine.catch(() => undefined);
    other.catch(() => undefined);
    await creations.abandon("pod-1", "pod is being stopped");
    expect(undone).toEqual(["a"]);
    await expect(mine).rejects.toMatchObject({ name: "CriError", message: "pod is being stopped" });
    await creations.abandonAll("shutting down");
    expect(undone).toEqual(["a", "b"]);
  });

  it("ends work that outlives its deadline", async () => {
    const creations = createCreations(1);
    const outcome = creations.join(testCall(), key, (signal) =>
      untilAborted(new Promise<string>(() => undefined), signal),
    );
    await expect(outcome).rejects.toMatchObject({ name: "TimeoutError" });
  });
});
