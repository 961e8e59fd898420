import { access, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { processIdentity, run, spawn } from "../../native/index.ts";
import { gateOf, isStarted, startContainer } from "./container-start.ts";
import { openStateStore } from "./state.ts";
import type { RuntimeConfig } from "./types.ts";

const env = { PATH: "/usr/bin:/bin" };

/** A container created by runc, with a shell in init's place; falling back to the runtime's own start fails. */
async function createdByRunc(init: string): Promise<{ host: Parameters<typeof startContainer>[0]; gate: string }> {
  const directory = await mkdtemp(join(tmpdir(), "berth-start-"));
  onTestFinished(async () => await rm(directory, { recursive: true }));
  const config: RuntimeConfig = {
    handler: "runc",
    path: "/bin/false",
    root: join(directory, "root"),
    monitorPath: "/bin/false",
    stateDir: directory,
    cgroupDriver: "systemd",
  };
  const gate = gateOf({ config }, "c1");
  await mkdir(join(directory, "root/c1"), { recursive: true });
  await mkdir(join(directory, "containers"));
  await run({ argv: ["/usr/bin/mkfifo", gate], env, signal: AbortSignal.timeout(5_000) });
  const child = await spawn({ argv: ["/bin/sh", "-c", init, "sh", gate], env, stdio: ["null", "null", "null"] });
  onTestFinished(async () => {
    child.kill(9);
    await child.exited;
  });
  const identity = await processIdentity(child.pid);
  if (!identity) throw new Error("the stand-in for init ended at once");
  const host = { config, program: "runc", states: await openStateStore(config) };
  const cgroups = { unified: undefined, controllers: {} };
  await host.states.save("c1", { bundle: directory, init: identity, monitor: undefined, cgroups, opensGate: true });
  return { host, gate };
}

test("an init that a busy machine holds up at its gate is waited for: it speaks once", async () => {
  const { host } = await createdByRunc('exec 3> "$1"; sleep 1.5; printf 0 >&3; sleep 30');
  await startContainer(host, AbortSignal.timeout(20_000), "c1");
  expect(await isStarted(host, "c1")).toBe(true);
});

test("an init that dies at its gate is left to the runtime to explain, at once", async () => {
  const { host, gate } = await createdByRunc('exec 3> "$1"');
  const startedAt = performance.now();
  await expect(startContainer(host, AbortSignal.timeout(20_000), "c1")).rejects.toThrow('cannot start container "c1"');
  expect(performance.now() - startedAt).toBeLessThan(10_000); // of the minute that a living one is given
  await access(gate);
});

test("an init that is killed at its gate was not started, though threads of it outlive the first", async () => {
  const exit = process.arch === "x64" ? 60 : 93; // of one thread
  const { host, gate } = await createdByRunc(`exec perl -Mthreads -e 'async { sleep 60 }; syscall(${exit}, 0)'`);
  const { init } = (await host.states.load("c1")) ?? {};
  await expect.poll(() => readFile(`/proc/${init?.pid}/stat`, "latin1")).toContain(") Z ");
  expect(await isStarted(host, "c1")).toBe(false);
  await access(gate);
});
