import { PassThrough, Readable, Writable } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type OutputPolicy, pumpOutput } from "./output-pump.ts";

const never = new Promise<undefined>(() => undefined);
const patient: OutputPolicy = { maxBufferedBytes: 1000, maxStallMs: undefined };
const impatient: OutputPolicy = { maxBufferedBytes: 1000, maxStallMs: 2000 };

/** A client that takes nothing until it is told to. */
function slowSink(): { sink: Writable; takeAll: () => void; received: () => number } {
  const waiting: (() => void)[] = [];
  let bytes = 0;
  const sink = new Writable({
    highWaterMark: 1,
    write(chunk: Buffer, _encoding, callback) {
      waiting.push(() => {
        bytes += chunk.length;
        callback();
      });
    },
  });
  const takeAll = (): void => {
    while (waiting.length > 0) waiting.shift()?.();
  };
  return { sink, takeAll, received: () => bytes };
}

/** A source that counts what was asked of it. */
function endlessSource(): { source: Readable; produced: () => number } {
  let bytes = 0;
  const source = new Readable({
    highWaterMark: 100,
    read() {
      bytes += 100;
      setImmediate(() => source.push(Buffer.alloc(100)));
    },
  });
  return { source, produced: () => bytes };
}

function turns(count: number): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number): void => void (left === 0 ? resolve() : setImmediate(() => turn(left - 1)));
    turn(count);
  });
}

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

describe("output", () => {
  test("is copied to its end", async () => {
    const sink = new PassThrough();
    await pumpOutput(Readable.from([Buffer.from("one"), Buffer.from("two")]), sink, patient, never);
    sink.end();
    expect(String(Buffer.concat(await sink.toArray()))).toBe("onetwo");
  });

  test("is not read further than the client's buffer, for as long as it takes", async () => {
    const { source, produced } = endlessSource();
    const { sink, takeAll } = slowSink();
    void pumpOutput(source, sink, patient, never);
    await turns(50);
    expect(produced()).toBeLessThan(1500);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(produced()).toBeLessThan(1500);
    for (let round = 0; round < 30; round++) {
      takeAll();
      await turns(2);
    }
    expect(produced()).toBeGreaterThan(1500);
    source.destroy();
  });

  test("of a container drops the client that leaves its buffer full", async () => {
    const { source } = endlessSource();
    const { sink } = slowSink();
    const pumped = pumpOutput(source, sink, impatient, never);
    const failure = expect(pumped).rejects.toThrow("does not read");
    await turns(50);
    await vi.advanceTimersByTimeAsync(2000);
    await failure;
    source.destroy();
  });

  test("of a container keeps a client that is slow but reads", async () => {
    const { source } = endlessSource();
    const { sink, takeAll, received } = slowSink();
    const pumped = pumpOutput(source, sink, impatient, never);
    for (let round = 0; round < 20; round++) {
      await turns(50);
      await vi.advanceTimersByTimeAsync(1500);
      for (let step = 0; step < 20; step++) takeAll();
    }
    expect(received()).toBeGreaterThan(5000);
    source.push(null);
    takeAll();
    source.destroy();
    await pumped;
  });

  test("is over after the exit once nothing comes, although its pipe stays open", async () => {
    const source = new PassThrough();
    const sink = new PassThrough();
    const { promise: exited, resolve } = Promise.withResolvers<undefined>();
    const pumped = pumpOutput(source, sink, patient, exited);
    source.write("a");
    await vi.advanceTimersByTimeAsync(10_000);
    resolve(undefined);
    source.write("b");
    await vi.advanceTimersByTimeAsync(100);
    source.write("c");
    await vi.advanceTimersByTimeAsync(100);
    source.write("d");
    await vi.advanceTimersByTimeAsync(200);
    await pumped;
    expect(String(sink.read())).toBe("abcd");
  });

  test("that was written before the exit reaches a client that takes its time", async () => {
    const source = new PassThrough({ highWaterMark: 10_000 });
    const { sink, takeAll, received } = slowSink();
    for (let index = 0; index < 50; index++) source.write(Buffer.alloc(100));
    const pumped = pumpOutput(source, sink, patient, Promise.resolve());
    await turns(5);
    await vi.advanceTimersByTimeAsync(3_600_000);
    for (let round = 0; round < 100; round++) {
      takeAll();
      await turns(1);
    }
    await vi.advanceTimersByTimeAsync(200);
    await pumped;
    expect(received()).toBe(5000);
  });

  test("that a process left behind writes for ever does not keep an exec for ever", async () => {
    const { source } = endlessSource();
    const sink = new Writable({ write: (_chunk, _encoding, callback) => callback() });
    source.push(Buffer.alloc(3 * 1024 * 1024));
    await pumpOutput(source, sink, { maxBufferedBytes: 1 << 30, maxStallMs: undefined }, Promise.resolve());
    source.destroy();
  });

  test("fails when the client is gone", async () => {
    const sink = new PassThrough();
    const pumped = pumpOutput(new PassThrough(), sink, patient, never);
    sink.destroy();
    await expect(pumped).rejects.toThrow("closed");
  });
});
