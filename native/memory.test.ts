import { expect, test } from "vitest";
import { run } from "./run.ts";

const script = `
  const { readFileSync } = await import("node:fs");
  const { releaseMemory } = await import(${JSON.stringify(new URL("./memory.ts", import.meta.url).href)});
  const read = (key) => Number(new RegExp("^" + key + ":\\\\s+(\\\\d+)", "m").exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]);
  const mapped = () => read("Rss") - read("Anonymous");
  const before = mapped();
  await releaseMemory();
  const after = mapped();
  const words = Array.from({ length: 1000 }, (_, index) => "w" + index).sort().join(" ");
  console.log(JSON.stringify({ before, after, isSound: JSON.parse(JSON.stringify(words)).length === 4889 }));
`;

test("the program's pages are given back, and what it needs of them is found again", async () => {
  const argv = [process.execPath, "--input-type=module", "--eval", script] as const;
  const { stdout } = await run({ argv, env: {}, signal: AbortSignal.timeout(60_000) });
  const { before, after, isSound } = JSON.parse(stdout.toString()) as {
    before: number;
    after: number;
    isSound: boolean;
  };
  expect(isSound).toBe(true);
  expect(after).toBeLessThan(before / 2);
});
