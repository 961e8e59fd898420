import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { atRest } from "./rest.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("works once after a start, and once after each burst of changes", () => {
  let change = (): void => undefined;
  const work = vi.fn();
  atRest([{ onChange: (listen) => void (change = listen) }], 1000, work);
  vi.advanceTimersByTime(5000);
  expect(work).toHaveBeenCalledTimes(1);
  for (let count = 0; count < 10; count += 1) {
    change();
    vi.advanceTimersByTime(900);
  }
  expect(work).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(5000);
  expect(work).toHaveBeenCalledTimes(2);
});
