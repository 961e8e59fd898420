import { expect, test } from "vitest";
import { createRedactor } from "./redact.ts";

const redact = createRedactor(["/var/lib/berth", "/run/berth"]);

test.each([
  ["open /var/lib/berth/layers/ab/x: denied", "open [internal path]: denied"],
  ['cannot mount "/run/berth/pods/1/shm" (EBUSY)', 'cannot mount "[internal path]" (EBUSY)'],
  ["root is /var/lib/berth", "root is [internal path]"],
  ["a=/var/lib/berth,b=/run/berth/x:rw", "a=[internal path],b=[internal path]:rw"],
  ["neighbours /var/lib/berth2/x and /run/berth.d stay", "neighbours /var/lib/berth2/x and /run/berth.d stay"],
  ['mount source "/data/x" is missing', 'mount source "/data/x" is missing'],
])("%j", (text, expected) => {
  expect(redact(text)).toBe(expected);
});

test("a stack trace is cut off", () => {
  const error = new Error("boom");
  expect(redact(`first line\nsecond line\n${String(error.stack)}`)).toBe("first line\nsecond line\nError: boom");
});

test("what gRPC cannot percent-encode is replaced, and a message is bounded", () => {
  const text = redact(`\ud800${"x".repeat(100_000)}`);
  expect(() => encodeURI(text)).not.toThrow();
  expect(text.length).toBeLessThan(5000);
});

test("directories are names, not patterns", () => {
  expect(createRedactor(["/tmp/a+b"])("at /tmp/a+b/c and /tmp/aab/c")).toBe("at [internal path] and /tmp/aab/c");
  expect(createRedactor([])("at /x")).toBe("at /x");
});
