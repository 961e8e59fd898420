import { expect, test } from "vitest";

import { extensionsOf, readDer } from "./der.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(" ", ""), "hex");

test("reads elements one after the other, with short and long lengths", () => {
  const long = Buffer.concat([hex("04 82 0100"), Buffer.alloc(256, 7)]);
  expect(readDer(Buffer.concat([hex("02 01 05"), long])).map(({ tag, content }) => [tag, content.length])).toEqual([
    [2, 1],
    [4, 256],
  ]);
  expect(readDer(Buffer.alloc(0))).toEqual([]);
});

test.each([
  ["04"],
  ["04 02 00"],
  ["04 80 00 00"],
  ["04 84 00000001 00"],
  ["04 82 01"],
  ["1f 81 00 00"],
  ["04 83 ffffff"],
])("refuses %j", (text) => {
  expect(() => readDer(hex(text))).toThrow("not DER");
});

test("endless elements end", () => {
  expect(() => readDer(Buffer.alloc(1 << 20))).toThrow("not DER");
});

test("no bytes make it do more than throw", () => {
  let seed = 1;
  const next = (): number => (seed = (seed * 48_271) % 0x7fff_ffff);
  for (let round = 0; round < 5000; round += 1) {
    const bytes = Buffer.from(Array.from({ length: next() % 64 }, () => next() % 256));
    try {
      extensionsOf(bytes);
    } catch (thrown) {
      expect(thrown).toMatchObject({ message: "not DER" });
    }
  }
});
