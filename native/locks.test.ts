import { describe, expect, test } from "vitest";
import { createKeyedLock, createSemaphore } from "./locks.ts";

describe("createKeyedLock", () => {
  test("runs the work of one key in the order of its calls", async () => {
    const lock = createKeyedLock();
    const order: string[] = [];
    const first = Promise.withResolvers<void>();
    const works = [
      lock.run("a", undefined, async () => {
        await first.promise;
        order.push("a1");
      }),
      lock.run("a", undefined, async () => void order.push("a2")),
      lock.run("b", undefined, async () => void order.push("b1")),
    ];
    await works[2];
    expect(order).toEqual(["b1"]);
    first.resolve();
    await Promise.all(works);
    expect(order).toEqual(["b1", "a1", "a2"]);
  });

  test("goes on after work that threw", async () => {
    const lock = createKeyedLock();
    const failing = lock.run("a", undefined, () => Promise.reject(new Error("no")));
    const next = lock.run("a", undefined, async () => 7);
    await expect(failing).rejects.toThrow("no");
    await expect(next).resolves.toBe(7);
  });

  test("rejects a waiter with the reason of its signal and lets those behind it pass", async () => {
    const lock = createKeyedLock();
    const holding = Promise.withResolvers<void>();
    const abort = new AbortController();
    const first = lock.run("a", undefined, () => holding.promise);
    const second = lock.run("a", abort.signal, async () => "ran");
    const third = lock.run("a", undefined, async () => "third");
    abort.abort(new Error("gave up"));
    await expect(second).rejects.toThrow("gave up");
    holding.resolve();
    await first;
    await expect(third).resolves.toBe("third");
  });

  test("refuses a signal that is aborted already", async () => {
    const lock = createKeyedLock();
    await expect(lock.run("a", AbortSignal.abort(new Error("late")), async () => 1)).rejects.toThrow("late");
    await expect(lock.run("a", undefined, async () => 2)).resolves.toBe(2);
  });
});

describe("createSemaphore", () => {
  test("lets no more works run than it has slots", async () => {
    const semaphore = createSemaphore(3);
    let running = 0;
    let most = 0;
    await Promise.all(
      Array.from({ length: 20 }, () =>
        semaphore.run(undefined, async () => {
          running += 1;
          most = Math.max(most, running);
          await Promise.resolve();
          running -= 1;
        }),
      ),
    );
    expect(most).toBe(3);
  });

  test("gives a slot back once, however often it is told to", async () => {
    const semaphore = createSemaphore(1);
    const giveBack = await semaphore.acquire(undefined);
    giveBack();
    giveBack();
    await semaphore.acquire(undefined);
    const late = semaphore.acquire(AbortSignal.timeout(1));
    await expect(late).rejects.toThrow(/timeout/i);
  });
});
