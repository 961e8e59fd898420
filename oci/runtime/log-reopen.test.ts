import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { reopenLog } from "./log-reopen.ts";
import type { Monitor } from "./monitor.ts";

async function setUp(holds: boolean, reopen: (logPath: string) => Promise<void>) {
  const directory = await mkdtemp(join(tmpdir(), "berth-log-"));
  onTestFinished(async () => await rm(directory, { recursive: true }));
  const logPath = join(directory, "0.log");
  let asked = 0;
  const monitor: Pick<Monitor, "holdsFile" | "reopenLog"> = {
    holdsFile: async () => holds,
    reopenLog: async () => {
      asked += 1;
      await reopen(logPath);
    },
  };
  return {
    directory,
    logPath,
    asked: () => asked,
    run: (signal: AbortSignal) => reopenLog(monitor, signal, directory, logPath),
  };
}

const soon = (): AbortSignal => AbortSignal.timeout(10_000);

test("returns when the new file is there, however late", async () => {
  const { run, logPath } = await setUp(false, async (path) => void setTimeout(() => void writeFile(path, ""), 30));
  await run(soon());
  expect(await readFile(logPath, "utf8")).toBe("");
});

test("a monitor that is gone is an error and leaves no file", async () => {
  const { run, directory } = await setUp(false, async () => {
    throw new Error("gone");
  });
  await expect(run(soon())).rejects.toThrow("gone");
  expect(await readdir(directory)).toEqual([]);
});

test("a file that the monitor holds already is left to it", async () => {
  const { run, logPath, asked } = await setUp(true, async () => undefined);
  await writeFile(logPath, "lines\n");
  await run(soon());
  expect(asked()).toBe(0);
  expect(await readFile(logPath, "utf8")).toBe("lines\n");
});

test("waiting for the file ends with the signal", async () => {
  const { run } = await setUp(false, async () => undefined);
  const whereverItWaits = expect.stringMatching(/^(?:Abort|Timeout)Error$/) as string;
  await expect(run(AbortSignal.timeout(20))).rejects.toMatchObject({ name: whereverItWaits });
});
