import { readFile } from "node:fs/promises";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { isAlive, isEnding, openProcess, processIdentity } from "./identity.ts";
import { type Child, spawn } from "./process.ts";

async function start(...argv: [string, ...string[]]): Promise<Child> {
  const child = await spawn({ argv, env: {}, stdio: ["null", "null", "null"], processGroup: true });
  onTestFinished(async () => {
    child.killGroup(constants.signals.SIGKILL);
    await child.exited;
  });
  return child;
}

async function childOf(parent: number): Promise<number> {
  for (;;) {
    const pid = Number.parseInt(await readFile(`/proc/${parent}/task/${parent}/children`, "utf8"), 10);
    if (pid > 0) return pid;
    await sleep(5);
  }
}

test("a process whose first thread has ended lives as long as another one", async () => {
  const exit = process.arch === "x64" ? 60 : 93; // of one thread
  const child = await start("/usr/bin/perl", "-Mthreads", "-e", `async { sleep 60 }; syscall(${exit}, 0)`);
  const identity = await processIdentity(child.pid);
  if (!identity) throw new Error("there is no process");
  while (!(await readFile(`/proc/${child.pid}/stat`, "latin1")).includes(") Z ")) await sleep(5);
  expect(isAlive(identity)).toBe(true);
  const handle = openProcess(identity);
  handle?.signal(constants.signals.SIGKILL);
  await handle?.exited;
  await handle?.[Symbol.asyncDispose]();
  expect(isAlive(identity)).toBe(false);
});

test("the init of a PID namespace is ending for as long as somebody in there is not seen to", async () => {
  const outside = await start("/usr/bin/unshare", "--pid", "--fork", "/bin/sleep", "60");
  const init = await processIdentity(await childOf(outside.pid));
  if (!init) throw new Error("there is no init");
  const visitor = await start("/usr/bin/nsenter", `--pid=/proc/${init.pid}/ns/pid`, "/bin/sleep", "60");
  await childOf(visitor.pid);
  expect(isEnding(init)).toBe(false);
  visitor.kill(constants.signals.SIGSTOP); // so that it does not see to its child
  process.kill(init.pid, "SIGKILL");
  while (!isEnding(init)) await sleep(5);
  expect(isAlive(init)).toBe(true);
  visitor.kill(constants.signals.SIGCONT);
  while (isAlive(init)) await sleep(5);
  expect(isEnding(init)).toBe(true);
});
