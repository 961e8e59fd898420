import { expect, test } from "vitest";
import { run } from "./run.ts";

const index = JSON.stringify(new URL("index.ts", import.meta.url).href);
/* Field 19 of a thread's stat is its niceness; names of threads may hold blanks and brackets. */
const readNiceness = `(thread) => process.getBuiltinModule("node:fs").readFileSync("/proc/" + thread + "/stat", "utf8").split(") ").at(-1).split(" ")[16]`;
const source = `
  import { readdirSync, readFileSync } from "node:fs";
  import { setImmediate } from "node:timers/promises";
  import { Worker } from "node:worker_threads";
  import { raisePriority, readFileBounded, run } from ${index};
  const nicenessOf = ${readNiceness};
  const taker = Number.parseInt(await readFileBounded("/proc/thread-self/stat", 4096)); // of the next job, once it rests
  while (!readFileSync("/proc/self/task/" + taker + "/stat", "utf8").includes(") S ")) await setImmediate();
  const isAllowed = await raisePriority();
  const threads = readdirSync("/proc/self/task");
  const ofProcess = new Set(threads.map((thread) => nicenessOf("self/task/" + thread)));
  const worker = new Worker(${JSON.stringify(`process.getBuiltinModule("node:worker_threads").parentPort.postMessage((${readNiceness})("thread-self"))`)}, { eval: true });
  const inWorker = await new Promise((resolve) => worker.once("message", resolve));
  const { stdout } = await run({ argv: ["/usr/bin/nice"], env: {}, signal: AbortSignal.timeout(10_000) });
  console.log(isAllowed, threads.length > 5, ...ofProcess, inWorker, String(stdout).trim());
`;

/** In a Node of its own: whether it was allowed, and the niceness of its threads, of a worker's, and of a program. */
async function raise(launcher: readonly [string, ...string[]]): Promise<string> {
  const { stdout, stderr } = await run({
    argv: [...launcher, process.execPath, "--input-type=module", "-e", source],
    env: { PATH: "/usr/bin:/bin" },
    signal: AbortSignal.timeout(20_000),
  });
  return `${stdout.toString()}${stderr.toString()}`;
}

test("this process comes first, and what it starts does not", async () => {
  expect(await raise(["/usr/bin/env"])).toBe("true true -20 0 0\n");
});

test("a priority that the process was given stays", async () => {
  expect(await raise(["/usr/bin/nice", "-n", "3"])).toBe("true true 3 3 3\n");
});

test("without CAP_SYS_NICE nothing changes", async () => {
  expect(await raise(["/usr/bin/setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"])).toBe(
    "false true 0 0 0\n",
  );
});
