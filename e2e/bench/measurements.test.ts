import { expect, test } from "vitest";
import { createRecorder, summarize, sumSteps } from "./measurements.ts";

test("a summary interpolates between ranks", () => {
  expect(summarize([4, 1, 3, 2])).toEqual({ count: 4, min: 1, median: 2.5, p95: expect.closeTo(3.85, 10) });
});

test("nothing measured has no summary", () => {
  expect(summarize([])).toBeUndefined();
});

test("steps are added up round by round, as far as all of them go", () => {
  const recorder = createRecorder();
  for (const value of [1, 2, 3]) recorder.add("create", value);
  for (const value of [10, 20]) recorder.add("start", value);
  expect(sumSteps(recorder, ["create", "start"])).toEqual([11, 22]);
  expect(sumSteps(recorder, ["create", "unknown"])).toEqual([]);
});

test("a step that fails is not recorded", async () => {
  const recorder = createRecorder();
  await expect(recorder.time("step", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(recorder.values("step")).toEqual([]);
});
