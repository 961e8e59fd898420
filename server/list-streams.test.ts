import { expect, test } from "vitest";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import { streamList } from "./list-streams.ts";
import { createLogBook } from "./testing.ts";

const call: Call = { requestId: "1", rpc: "Test", signal: new AbortController().signal, log: createLogBook().log };

async function sizesOf(count: number): Promise<readonly number[]> {
  const items = Array.from({ length: count }, (_, index): Init<cri.Image> => ({ id: `${index}` }));
  const stream = streamList<"StreamImages", Init<cri.Image>>(
    async () => items,
    (images) => ({ images }),
  );
  const messages: Init<cri.Image>[][] = [];
  for await (const { images } of stream(call, { filter: null }))
    messages.push([...(images ?? [])] as Init<cri.Image>[]);
  expect(messages.flat()).toEqual(items);
  return messages.map((message) => message.length);
}

test("each item comes once, 3000 a message, and nothing is no message", async () => {
  expect(await sizesOf(0)).toEqual([]);
  expect(await sizesOf(1)).toEqual([1]);
  expect(await sizesOf(3000)).toEqual([3000]);
  expect(await sizesOf(6001)).toEqual([3000, 3000, 1]);
});

test("a refused list is a refused stream", async () => {
  const stream = streamList<"StreamImages", Init<cri.Image>>(
    async () => {
      throw new CriError(Code.InvalidArgument, "no such filter");
    },
    (images) => ({ images }),
  );
  await expect(stream(call, { filter: null })[Symbol.asyncIterator]().next()).rejects.toThrow("no such filter");
});

test("other work has its turn between two messages", async () => {
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 0);
  const stream = streamList<"StreamImages", number>(
    async () => Array.from({ length: 30_000 }, (_, index) => index),
    (numbers) => ({ images: numbers.map((size) => ({ size: BigInt(size) })) }),
  );
  let messages = 0;
  for await (const _ of stream(call, { filter: null })) messages += 1;
  clearInterval(timer);
  expect(messages).toBe(10);
  expect(turns).toBeGreaterThan(0);
});
