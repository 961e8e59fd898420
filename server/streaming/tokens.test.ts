import { expect, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { createTokenStore } from "./tokens.ts";

test("a token is redeemed once", () => {
  const store = createTokenStore<string>();
  const token = store.issue("value");
  expect(Buffer.from(token, "base64url").length * 8).toBeGreaterThanOrEqual(128);
  expect(store.redeem(token)).toBe("value");
  expect(store.redeem(token)).toBeUndefined();
});

test("a token lives for a minute", () => {
  let now = 0;
  const store = createTokenStore<string>(() => now);
  const [first, second] = [store.issue("first"), store.issue("second")];
  now = 59_999;
  expect(store.redeem(first)).toBe("first");
  now = 60_000;
  expect(store.redeem(second)).toBeUndefined();
});

test("1000 tokens wait at most, and room comes with use and with time", () => {
  let now = 0;
  const store = createTokenStore<number>(() => now);
  const tokens = Array.from({ length: 1000 }, (_, index) => store.issue(index));
  expect(new Set(tokens).size).toBe(1000);
  expect(() => store.issue(1)).toThrow(expect.objectContaining({ code: Code.ResourceExhausted }));
  store.redeem(tokens[500] ?? "");
  store.issue(1);
  expect(() => store.issue(1)).toThrow("in-flight");
  now = 60_000;
  store.issue(1);
});
