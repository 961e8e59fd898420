import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { createFakeRuntime } from "../oci/testing.ts";
import type { FakeRuntime } from "../oci/testing.ts";
import { createExitWatch } from "./exit-watch.ts";
import type { ContainerIn } from "./container.ts";
import { layoutOf } from "./layout.ts";
import { inCreated, openTestRecords, silentLog, testContainer, testSandbox } from "./testing.ts";

const sandbox = testSandbox("pod");
const ownPids = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" } } } };

async function openWatch(runtime: FakeRuntime = createFakeRuntime("crun")) {
  const records = await openTestRecords();
  const bundle = await mkdtemp(join(tmpdir(), "berth-bundle-"));
  const layout = layoutOf(bundle, bundle);
  const exits = createExitWatch({ ...records, runtimes: new Map([["crun", runtime]]), layout, log: silentLog });
  onTestFinished(async () => {
    await exits[Symbol.asyncDispose]();
    await records[Symbol.asyncDispose]();
    await rm(bundle, { recursive: true, force: true });
  });
  return { ...records, runtime, exits, bundle };
}

type Watch = Awaited<ReturnType<typeof openWatch>>;

async function running(watch: Watch, config: object = ownPids, fields: object = {}): Promise<ContainerIn<"running">> {
  const created = { ...inCreated(testContainer("web", sandbox, config)), ...fields };
  const process = { id: created.id, bundle: watch.bundle, spec: { process: { args: ["sleep", "1000"] } } };
  const { init } = await watch.runtime.create(new AbortController().signal, process as never);
  const container = { ...created, init, state: "running", startedAtNs: 1_000n } as const;
  await watch.containers.save(container);
  return container;
}

describe("createExitWatch", () => {
  it("writes an exit into the record and tells who waits", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    watch.exits.watch(container);
    const ended = watch.exits.ended(container.id);
    watch.runtime.finish(container.id, { exitCode: 3, finishedAtNs: 5_000n });
    await ended;
    expect(watch.containers.get(container.id)).toMatchObject({
      state: "exited",
      exitCode: 3,
      reason: "Error",
      startedAtNs: 1_000n,
      finishedAtNs: 5_000n,
    });
  });

  it("lets no container end before it started where the clock was set back", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    watch.runtime.finish(container.id, { exitCode: 0, finishedAtNs: 500n });
    await watch.exits.ended(container.id);
    expect(watch.containers.get(container.id)).toMatchObject({ startedAtNs: 1_000n, finishedAtNs: 1_000n });
  });

  it("waits for the end of a live container that nobody watched yet", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    let hasEnded = false;
    const ended = watch.exits.ended(container.id).then(() => {
      hasEnded = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(hasEnded).toBe(false);
    watch.runtime.finish(container.id, {});
    await ended;
    expect(watch.containers.get(container.id)?.state).toBe("exited");
  });

  it("has nothing to wait for where there is no container, or one that has ended", async () => {
    const watch = await openWatch();
    await watch.exits.ended("f".repeat(64));
    const container = await running(watch);
    watch.runtime.finish(container.id, {});
    await watch.exits.ended(container.id);
    await watch.exits.ended(container.id);
  });

  it("tries again when an exit could not be written down", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    const update = vi.spyOn(watch.containers, "update");
    update.mockRejectedValueOnce(new Error("no space left on device"));
    watch.exits.watch(container);
    watch.runtime.finish(container.id, { exitCode: 1 });
    await watch.exits.ended(container.id);
    expect(watch.containers.get(container.id)).toMatchObject({ state: "exited", exitCode: 1 });
    expect(update.mock.calls.length).toBeGreaterThan(1);
  });

  it("tells the end of a container whose children cannot be killed", async () => {
    const runtime = createFakeRuntime("crun");
    const watch = await openWatch({
      ...runtime,
      kill: () => Promise.reject(new Error("processes of the container survive SIGKILL")),
    });
    const container = await running(watch, {});
    watch.runtime.finish(container.id, { exitCode: 7 });
    await watch.exits.ended(container.id);
    expect(watch.containers.get(container.id)).toMatchObject({ state: "exited", exitCode: 7 });
  });

  it("kills the children of a container that shares its PID namespace, and no others'", async () => {
    const watch = await openWatch();
    const shared = await running(watch, {});
    watch.runtime.finish(shared.id, {});
    await watch.exits.ended(shared.id);
    expect(watch.runtime.journal).toContain(`kill ${shared.id} 9`);
    const other = await openWatch();
    const own = await running(other);
    other.runtime.finish(own.id, {});
    await other.exits.ended(own.id);
    expect(other.runtime.journal).not.toContain(`kill ${own.id} 9`);
  });

  it("does not take the daemon's end for the container's", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    const ended = watch.exits.ended(container.id);
    await watch.exits[Symbol.asyncDispose]();
    await expect(ended).rejects.toMatchObject({ name: "CriError", message: "Berth is shutting down" });
    expect(watch.containers.get(container.id)?.state).toBe("running");
  });

  it("writes down an end after the start that it fell into", async () => {
    const watch = await openWatch();
    const { startedAtNs: _, ...before } = await running(watch);
    const container = { ...before, state: "created" } as const;
    await watch.containers.save(container);
    const started = Promise.withResolvers<void>();
    const starting = watch.exits.whileStarting(container.id, () => started.promise);
    watch.exits.watch(container);
    watch.runtime.finish(container.id, {});
    await new Promise((resolve) => setImmediate(resolve));
    expect(watch.containers.get(container.id)?.state).toBe("created");
    started.resolve();
    await starting;
    await watch.exits.ended(container.id);
    expect(watch.containers.get(container.id)?.state).toBe("exited");
  });

  it("says which limit an OOM kill met", async () => {
    const watch = await openWatch();
    const container = await running(watch);
    const { resources } = container;
    const limited = { ...container, resources: { ...resources, memoryLimitInBytes: 67_108_864n } };
    await watch.containers.save(limited);
    watch.runtime.finish(container.id, { exitCode: 137, oomKilled: true });
    await watch.exits.ended(container.id);
    const limit = "for want of memory; the container's limit is 67108864 bytes";
    expect(watch.containers.get(container.id)).toMatchObject({ reason: "OOMKilled", message: `killed ${limit}` });
    await expect
      .poll(() => watch.containers.get(container.id))
      .toMatchObject({ message: `process "hungry" was killed ${limit}` });
  });

  it("quotes the last words of a container that died at once", async () => {
    const watch = await openWatch();
    const logPath = join(watch.bundle, "0.log");
    const time = "2026-11-23T10:00:00.000000000Z";
    await writeFile(logPath, `${time} stdout F hello\n${time} stderr F cannot open /etc/web.conf\n`);
    const container = await running(watch, ownPids, { logPath });
    watch.runtime.finish(container.id, { exitCode: 2, finishedAtNs: 2_000_000n });
    await watch.exits.ended(container.id);
    await expect.poll(() => watch.containers.get(container.id)).toMatchObject({ message: "cannot open /etc/web.conf" });
  });

  it.each([
    ["succeeded", { exitCode: 0, finishedAtNs: 2_000_000n }],
    ["ran for long", { exitCode: 2, finishedAtNs: 60_000_000_000n }],
  ])("does not read the log of a container that %s", async (_, exit) => {
    const watch = await openWatch();
    const logPath = join(watch.bundle, "0.log");
    await writeFile(logPath, "2026-11-23T10:00:00.000000000Z stderr F secret\n");
    const container = await running(watch, ownPids, { logPath });
    watch.runtime.finish(container.id, exit);
    await watch.exits.ended(container.id);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(watch.containers.get(container.id)).toMatchObject({ message: "" });
  });

  it("knows a pod as not ready whose pause process has ended", async () => {
    const watch = await openWatch();
    const pause = { pid: 2 ** 22 + 7, startTime: "1" };
    const ready = { ...testSandbox("pod"), state: "ready", ips: ["10.0.0.1"], pause } as const;
    await watch.sandboxes.save(ready);
    watch.exits.watchPause(ready);
    await expect.poll(() => watch.sandboxes.get(ready.id)).toMatchObject({ state: "not-ready", ips: ["10.0.0.1"] });
  });
});
