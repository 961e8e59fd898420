import { afterAll, expect } from "vitest";
import { describeRuntimeContract } from "../testing.ts";
import { openBench } from "./testing.ts";
import type { Bench } from "./testing.ts";

for (const program of ["crun", "runc"] as const) {
  let bench: Bench | undefined;
  describeRuntimeContract(program, async () => {
    const opened = await openBench(program);
    bench = opened;
    return {
      runtime: opened.runtime,
      prepare: (args) => opened.prepare(args),
      [Symbol.asyncDispose]: async () => {
        expect(await opened.leftovers()).toEqual([]);
        await opened[Symbol.asyncDispose]();
      },
    };
  });
  afterAll(() => expect(bench).toBeDefined());
}
