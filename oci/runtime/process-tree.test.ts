import { expect, test } from "vitest";
import { descendantsOf, isLive, parseStat, readStat } from "./process-tree.ts";

const fields = "S 10 42 43 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";

test("a command's name may hold what separates fields", () => {
  for (const name of ["sleep", "a) S 1 (b", "x y", ")", "("]) {
    expect(parseStat(`41 (${name}) ${fields}\n`)).toEqual({
      pid: 41,
      state: "S",
      ppid: 10,
      processGroup: 42,
      session: 43,
      threads: 1,
      startTime: "987654",
    });
  }
});

test("what is no stat line is no process", () => {
  for (const text of ["", "41", "41 (x)", "41 (x) S 1", " (x) S"]) expect(parseStat(text)).toBeUndefined();
});

test("this process is seen and has a parent", async () => {
  const self = await readStat(process.pid);
  expect(isLive(self)).toBe(true);
  expect(self?.ppid).toBe(process.ppid);
  expect((await descendantsOf(process.ppid)).map(({ pid }) => pid)).toContain(process.pid);
});

test("a process that is not there has no stat and no descendants", async () => {
  expect(await readStat(2 ** 22 + 5)).toBeUndefined();
  expect(await descendantsOf(2 ** 22 + 5)).toEqual([]);
});
