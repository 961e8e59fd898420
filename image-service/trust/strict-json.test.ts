import { expect, test } from "vitest";

import { parseStrictJson } from "./strict-json.ts";

const parse = (text: string): unknown => parseStrictJson(Buffer.from(text));

test("reads what every parser reads alike", () => {
  const text = '{"a":[{"b":1},{"b":2}],"c":{"a":"{\\"a\\":1,\\"a\\":2}"},"":null}';
  expect(parse(text)).toEqual(JSON.parse(text));
});

test.each([
  ['{"a":1,"a":2}', '"a" twice'],
  ['{"a":1,"\\u0061":2}', '"a" twice'],
  ['[{"x":{"y":1,"z":[],"y":2}}]', '"y" twice'],
  ['{"__proto__":1,"__proto__":2}', "twice"],
  ["{", "not JSON"],
  ["", "not JSON"],
])("refuses %j", (text, why) => {
  expect(() => parse(text)).toThrow(why);
});

test("refuses bytes that are not UTF-8", () => {
  expect(() => parseStrictJson(Buffer.from([0x22, 0xff, 0x22]))).toThrow("UTF-8");
});
