import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { helperPath } from "./binding.ts";
import { isAlive, processIdentity } from "./identity.ts";
import { run, type RunResult } from "./run.ts";

let directory: string;
let pidFile: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-follow-"));
  pidFile = join(directory, "pid");
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** A shell stands for the runtime: what it leaves in the background is the command. */
function follow(script: string): Promise<RunResult> {
  return run({
    argv: [helperPath, "follow", pidFile, "/bin/sh", "-c", script, "sh", pidFile],
    env: { PATH: "/bin:/usr/bin", MARK: "kept" },
    input: "given",
    signal: AbortSignal.timeout(10_000),
  });
}

test.each([
  ["its exit code", "exit 7", 7],
  ["128 and the signal's number", "kill -9 $$", 137],
])("ends as the process left behind: %s", async (_what, command, code) => {
  const { status } = await follow(`sh -c 'sleep 0.3; ${command}' & echo $! > "$1"; exit 0`);
  expect(status).toEqual({ kind: "exited", code });
});

test("the program has the streams, the environment and the arguments it was given", async () => {
  const { stdout, stderr } = await follow('cat; echo " $MARK $0"; echo oops >&2; sh -c "echo later" & echo $! > "$1"');
  expect(stdout.toString()).toBe("given kept sh\nlater\n");
  expect(stderr.toString()).toBe("oops\n");
});

test("without the file it ends as the program, and says when that cannot be run", async () => {
  expect((await follow("exit 3")).status).toEqual({ kind: "exited", code: 3 });
  const missing = await run({
    argv: [helperPath, "follow", pidFile, "/no/such/program"],
    env: {},
    signal: AbortSignal.timeout(10_000),
  });
  expect(missing.status).toEqual({ kind: "exited", code: 127 });
  expect(missing.stderr.toString()).toContain("cannot be executed: error 2");
});

test("it waits for no other process, and ends when there is nobody to wait for", async () => {
  const { status } = await follow('sleep 5 & echo $! > "$1.other"; sh -c "sleep 0.3; exit 6" & echo $! > "$1"');
  expect(status).toEqual({ kind: "exited", code: 6 });
  const other = await processIdentity(Number(await readFile(`${pidFile}.other`, "utf8")));
  expect(other && isAlive(other)).toBe(true);
  if (other) process.kill(other.pid);
  expect((await follow('sleep 5 & echo $! >> "$1.other"; echo 1 > "$1"')).status).toEqual({
    kind: "exited",
    code: 255,
  });
  const second = Number((await readFile(`${pidFile}.other`, "utf8")).split("\n")[1]);
  process.kill(second);
});
