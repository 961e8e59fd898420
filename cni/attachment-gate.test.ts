import { describe, expect, it } from "vitest";
import { createAttachmentGate } from "./attachment-gate.ts";

const never = new AbortController().signal;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("the gate", () => {
  it("lets verbs run beside each other", async () => {
    const gate = createAttachmentGate();
    const { promise, resolve } = Promise.withResolvers<void>();
    const first = gate.shared(never, () => promise);
    expect(await gate.shared(never, () => Promise.resolve("second"))).toBe("second");
    resolve();
    await first;
  });

  it("lets a collection run alone, and verbs after it", async () => {
    const gate = createAttachmentGate();
    const events: string[] = [];
    const verb = Promise.withResolvers<void>();
    const collection = Promise.withResolvers<void>();
    const first = gate.shared(never, () => verb.promise);
    const collecting = gate.exclusive(never, async () => {
      events.push("collection begins");
      await collection.promise;
      events.push("collection ends");
    });
    await turn();
    expect(events).toEqual([]);
    verb.resolve();
    await first;
    await turn();
    const second = gate.shared(never, async () => void events.push("verb"));
    await turn();
    expect(events).toEqual(["collection begins"]);
    collection.resolve();
    await Promise.all([collecting, second]);
    expect(events).toEqual(["collection begins", "collection ends", "verb"]);
  });

  it("does not hold verbs back for a collection that waits for a hung one", async () => {
    const gate = createAttachmentGate();
    const hung = Promise.withResolvers<void>();
    const first = gate.shared(never, () => hung.promise);
    const giveUp = new AbortController();
    const collecting = gate.exclusive(giveUp.signal, () => Promise.resolve());
    await gate.shared(never, () => Promise.resolve());
    giveUp.abort(new Error("too late"));
    await expect(collecting).rejects.toThrow("too late");
    hung.resolve();
    await first;
    expect(await gate.exclusive(never, () => Promise.resolve(1))).toBe(1);
  });

  it("opens again after work that failed", async () => {
    const gate = createAttachmentGate();
    await expect(gate.exclusive(never, () => Promise.reject(new Error("a")))).rejects.toThrow("a");
    await expect(gate.shared(never, () => Promise.reject(new Error("b")))).rejects.toThrow("b");
    expect(await gate.exclusive(never, () => Promise.resolve(2))).toBe(2);
  });
});
