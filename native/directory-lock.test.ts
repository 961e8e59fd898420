import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockDirectory } from "./directory-lock.ts";
import { spawn } from "./process.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-lock-"));
});
afterEach(() => rm(directory, { recursive: true }));

test("a directory has one holder, and another once it is let go", async () => {
  const first = lockDirectory(directory);
  expect(first).toBeDefined();
  expect(lockDirectory(directory)).toBeUndefined();
  first?.[Symbol.dispose]();
  using second = lockDirectory(directory);
  expect(second).toBeDefined();
  await expect(readdir(directory)).resolves.toEqual([]);
});

test("a lock goes with the process that held it, and no child keeps it", async () => {
  const moduleOf = (name: string): string => JSON.stringify(new URL(name, import.meta.url));
  const program = `
    const { lockDirectory } = await import(${moduleOf("./directory-lock.ts")});
    const { spawn } = await import(${moduleOf("./process.ts")});
    globalThis.lock = lockDirectory(${JSON.stringify(directory)});
    const child = await spawn({ argv: ["/bin/sleep", "60"], env: {}, stdio: ["null", "null", "null"] });
    process.stdout.write(String(child.pid));
    setInterval(() => {}, 1000);`;
  const holder = await spawn({
    argv: [process.execPath, "--input-type=module", "--eval", program],
    env: {},
    stdio: ["null", "pipe-write", { fd: 2 }],
  });
  const [childPid]: unknown[] = holder.stdio[1] ? await once(holder.stdio[1], "data") : [];
  expect(lockDirectory(directory)).toBeUndefined();
  holder.kill(constants.signals.SIGKILL);
  await holder.exited;
  using lock = lockDirectory(directory);
  process.kill(Number(childPid), "SIGKILL"); // it outlived the holder
  expect(lock).toBeDefined();
});

test("what is no directory is refused", () => {
  expect(() => lockDirectory(join(directory, "absent"))).toThrow(/ENOENT/);
});
