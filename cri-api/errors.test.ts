import { setTimeout } from "node:timers/promises";
import { expect, test } from "vitest";
import { Code, CriError, toCriError } from "./errors.ts";

test("a CriError passes unchanged", () => {
  const error = new CriError(Code.NotFound, 'container "x" not found');
  expect(toCriError(error)).toBe(error);
});

test("a failed undo does not hide why the call failed", () => {
  const cause = new CriError(Code.FailedPrecondition, "pod is not ready");
  const suppressed = new SuppressedError(new Error("umount failed"), cause);
  expect(toCriError(new SuppressedError(new Error("second undo failed"), suppressed))).toBe(cause);
});

test("a plain failure is Internal and keeps its cause", () => {
  const error = new TypeError("boom");
  expect(toCriError(error)).toMatchObject({ code: Code.Internal, message: "boom", cause: error });
  expect(toCriError("just text")).toMatchObject({ code: Code.Internal, message: "just text" });
  expect(toCriError(undefined).code).toBe(Code.Internal);
});

test("a deadline is told as DeadlineExceeded, also where Node wraps it in an AbortError", async () => {
  const thrown = await setTimeout(60_000, undefined, { signal: AbortSignal.timeout(1) }).catch(
    (error: unknown) => error,
  );
  expect(thrown).toMatchObject({ name: "AbortError" });
  expect(toCriError(thrown).code).toBe(Code.DeadlineExceeded);
});

test("an abort with a CriError as its reason becomes that error", async () => {
  const reason = new CriError(Code.Unavailable, "shutting down");
  const thrown = await setTimeout(60_000, undefined, { signal: AbortSignal.abort(reason) }).catch((e: unknown) => e);
  expect(toCriError(thrown)).toBe(reason);
});

test("an abort without a reason of its own is Canceled", () => {
  const controller = new AbortController();
  controller.abort();
  expect(toCriError(controller.signal.reason).code).toBe(Code.Canceled);
});

test.each([
  ["ENOSPC", Code.ResourceExhausted],
  ["EMFILE", Code.ResourceExhausted],
  ["EROFS", Code.FailedPrecondition],
  ["EIO", Code.Internal],
])("what the machine refuses with %s has a code of its own", (errno, code) => {
  const error = Object.assign(new Error(`write: refused (${errno})`), { code: errno });
  expect(toCriError(error)).toMatchObject({ code, message: `write: refused (${errno})`, cause: error });
});
