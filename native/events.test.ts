import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { run } from "./run.ts";
import { createSemaphore } from "./locks.ts";
import { readFileBounded } from "./files.ts";

const index = JSON.stringify(new URL("index.ts", import.meta.url).href);
const limit = (): AbortSignal => AbortSignal.timeout(10_000);

/** Runs a module in a Node of its own, which must end by itself. */
async function runModule(source: string): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const result = await run({
    argv: [process.execPath, "--input-type=module", "-e", `import * as native from ${index};\n${source}`],
    env: {},
    signal: limit(),
  });
  return { stdout: result.stdout.toString(), stderr: result.stderr.toString() };
}

test("an addon with nothing to wait for lets the event loop end", async () => {
  const { stdout } = await runModule(`
    await native.readFileBounded("/proc/self/stat", 4096);
    await native.run({ argv: ["/bin/true"], env: {}, signal: AbortSignal.timeout(5000) });
    const watching = native.watchDirectory("/tmp", () => undefined);
    await watching[Symbol.asyncDispose]();
    process.on("exit", () => console.log("ended"));
  `);
  expect(stdout).toBe("ended\n");
});

test("a running child and a pending job keep the event loop alive", async () => {
  const { stdout } = await runModule(`
    const child = await native.spawn({ argv: ["/bin/sleep", "0.1"], env: {}, stdio: ["null", "null", "null"] });
    void child.exited.then(() => console.log("child"));
    void native.removeTree("/nonexistent/tree").then(() => console.log("job"));
  `);
  expect(stdout.split("\n").toSorted()).toEqual(["", "child", "job"]);
});

test("process.exit works with everything still under way", async () => {
  const { stdout, stderr } = await runModule(`
    const child = await native.spawn({ argv: ["/bin/sleep", "1"], env: {}, stdio: ["null", "pipe-write", "null"] });
    native.watchDirectory("/tmp", () => undefined);
    for (let i = 0; i < 40; i++) void native.readFileBounded("/proc/self/stat", 4096);
    console.log("leaving");
    process.exit(0);
  `);
  expect({ stdout, stderr }).toEqual({ stdout: "leaving\n", stderr: "" });
});

test("what a handler throws is an uncaught exception, not silence", async () => {
  const directory = await mkdtemp(join(tmpdir(), "berth-events-"));
  const { stdout } = await runModule(`
    process.on("uncaughtException", (error) => {
      console.log(error.message);
      process.exit(0);
    });
    native.watchDirectory(${JSON.stringify(directory)}, () => { throw new Error("from a handler"); });
    await native.writeFileAtomically(${JSON.stringify(join(directory, "file"))}, "");
  `);
  await rm(directory, { recursive: true });
  expect(stdout).toBe("from a handler\n");
});

test("a worker may be terminated with jobs and children under way", async () => {
  const source = `
    import { parentPort } from "node:worker_threads";
    import * as native from ${index};
    await native.spawn({ argv: ["/bin/sleep", "0.2"], env: {}, stdio: ["null", "pipe-write", "null"] });
    native.watchDirectory("/tmp", () => undefined);
    const again = () => native.readFileBounded("/proc/self/stat", 4096).then(again);
    for (let i = 0; i < 30; i++) void again();
    parentPort.postMessage("busy");
  `;
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const slots = createSemaphore(2);
  await Promise.all(
    Array.from({ length: 6 }, () =>
      slots.run(undefined, async () => {
        const worker = new Worker(url);
        await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
        await worker.terminate();
      }),
    ),
  );
  await expect(readFileBounded("/proc/self/stat", 4096)).resolves.toBeInstanceOf(Buffer);
});

test("the file operations of libuv's pool run while every job thread is busy", async () => {
  const { stdout } = await runModule(`
    import { stat } from "node:fs/promises";
    const end = performance.now() + 200;
    const again = () => performance.now() < end && native.removeTree("/nonexistent").then(again);
    for (let i = 0; i < 100; i++) void again();
    await stat("/tmp");
    console.log("stat");
  `);
  expect(stdout).toBe("stat\n");
});

test("more jobs at once than there are threads all get their turn", async () => {
  const reads = await Promise.all(Array.from({ length: 500 }, () => readFileBounded("/proc/self/stat", 4096)));
  expect(reads.every((bytes) => bytes !== undefined && bytes.length > 0)).toBe(true);
});

test("threads take one job after the other, and none is left at rest", async () => {
  const { stdout } = await runModule(`
    import { readdirSync } from "node:fs";
    const countThreads = () => readdirSync("/proc/self/task").length;
    const read = () => native.readFileBounded("/proc/thread-self/stat", 4096);
    const idOf = (stat) => Number.parseInt(stat.toString(), 10);
    await read();
    const withOneAtRest = countThreads();
    const ids = new Set();
    for (let i = 0; i < 200; i++) ids.add(idOf(await read()));
    await Promise.all(Array.from({ length: 100 }, read));
    const until = performance.now() + 8000;
    while (countThreads() >= withOneAtRest && performance.now() < until) await new Promise((next) => setTimeout(next, 50));
    console.log(ids.size < 20, withOneAtRest - countThreads());
  `);
  expect(stdout).toBe("true 1\n");
});
