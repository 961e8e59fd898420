import { expect, test } from "vitest";
import { createRecorder, type Recorder } from "./measurements.ts";
import { type BenchResult, renderTable, resultRows } from "./result.ts";

function recorderOf(values: Readonly<Record<string, number>>): Recorder {
  const recorder = createRecorder();
  for (const [step, value] of Object.entries(values)) recorder.add(step, value);
  return recorder;
}

function lineOf(title: string, byContestant: Readonly<Record<string, Readonly<Record<string, number>>>>): string {
  const contestants = new Map(Object.entries(byContestant).map(([name, values]) => [name, recorderOf(values)]));
  const rows = resultRows({ contestants, floor: createRecorder() });
  const machine = { kernel: "", cpus: 1, cpuModel: "", loadBefore: 0, loadAfter: 0 };
  const result: BenchResult = { startedAt: "", machine, options: {}, versions: {}, rows, floor: [] };
  const line = renderTable(result)
    .split("\n")
    .find((each) => each.startsWith(title));
  return line?.replaceAll(/\s+/gu, " ") ?? "";
}

const throttled = "PullImage, 20 MB/s a connection";
const growth = "RSS growth in PullImage";

test("a mark is about the ratio to containerd, and about nobody else", () => {
  const values = { berth: { [throttled]: 4 }, containerd: { [throttled]: 8 } };
  expect(lineOf(throttled, values)).toContain("0.50 ≤ 0.40 MISSED");
  expect(lineOf(throttled, { berth: { [throttled]: 3 }, containerd: { [throttled]: 8 } })).toContain("holds");
  expect(lineOf(throttled, { berth: { [throttled]: 4 }, other: { [throttled]: 8 } })).toMatch(/0\.50$/u);
});

test("a limit is about Berth's own value, also when it is alone", () => {
  expect(lineOf(growth, { berth: { [growth]: 151 } })).toContain("≤ 150 MB MISSED");
  expect(lineOf(growth, { berth: { [growth]: 149 }, containerd: { [growth]: 10 } })).toContain("≤ 150 MB holds");
});
