import { expect, test } from "vitest";
import { parseExitCode, parseOomKills } from "./container-exit.ts";

test("an exit file holds a decimal code", () => {
  expect([parseExitCode("0"), parseExitCode("137"), parseExitCode("7\n")]).toEqual([0, 137, 7]);
});

test("what is no exit code reads as unknown", () => {
  for (const text of ["", "-1", "256", "1e2", "0x10", "12 3", "999999", "NaN"]) expect(parseExitCode(text)).toBe(255);
});

test("the kernel's count of killed processes is found in either file", () => {
  expect(parseOomKills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")).toBe(2);
  expect(parseOomKills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 1\noom_group_kill 0\n")).toBe(1);
  expect(parseOomKills("oom_kill_disable 1\n")).toBe(0);
});
