import { readdir } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Code, loadJsonCodecs } from "../cri-api/index.ts";
import { readMountTable } from "../native/index.ts";
import type { CreateProcess } from "../oci/index.ts";
import { sandboxPathsOf } from "./layout.ts";
import { removePodSandbox } from "./sandbox-remove.ts";
import { runPodSandbox } from "./sandbox-run.ts";
import { stopPodSandbox } from "./sandbox-stop.ts";
import { testCall } from "./testing.ts";
import { openTestHost } from "./testing-host.ts";
import type { TestHost } from "./testing-host.ts";

const codecs = loadJsonCodecs();

let host: TestHost;
beforeEach(async () => {
  host = await openTestHost();
});
afterEach(async () => {
  for (const { id } of host.sandboxes.all()) await removePodSandbox(testCall(), { podSandboxId: id }, host);
  await host[Symbol.asyncDispose]();
});

async function run(call = testCall(), config: object = {}): Promise<string> {
  const metadata = { name: "web", namespace: "default", uid: "u1" };
  const request = { config: codecs.PodSandboxConfig.fromJson({ metadata, ...config }), runtimeHandler: "" };
  const { podSandboxId } = await runPodSandbox(call, request, host);
  return podSandboxId ?? "";
}

async function mountsBelow(directory: string): Promise<readonly string[]> {
  return (await readMountTable()).map(({ mountPoint }) => mountPoint).filter((path) => path.startsWith(directory));
}

async function leftOver(): Promise<unknown[]> {
  const { layout, sandboxes, runtime, directory } = host;
  const files = await Promise.all([readdir(layout.sandboxRecords), readdir(layout.sandboxes)]);
  return [...files.flat(), ...sandboxes.all(), ...runtime.ids, ...(await mountsBelow(directory))];
}

/** The pause process of the fake runtime is none: `sleep` stands for it. */
function letPauseRun(): void {
  const { runtime } = host;
  const create = runtime.create.bind(runtime);
  Object.assign(host.runtime, {
    create: (signal: AbortSignal, process: CreateProcess) => {
      const spec = { ...process.spec, process: { ...process.spec.process, args: ["sleep", "1000"] } };
      return create(signal, { ...process, spec });
    },
  });
}

describe("runPodSandbox", () => {
  beforeEach(letPauseRun);

  it("pins namespaces, mounts /dev/shm and attaches the network", async () => {
    const id = await run();
    expect(host.sandboxes.get(id)).toMatchObject({ ips: ["10.0.0.2"] });
    expect(await mountsBelow(host.directory)).toHaveLength(4);
    expect(host.network.journal).toEqual([`add ${id}`]);
    await removePodSandbox(testCall(), { podSandboxId: id }, host);
    expect(await leftOver()).toEqual([]);
  });

  it("undoes all where the network fails", async () => {
    host.network.fail.add = new Error("no addresses left");
    await expect(run()).rejects.toThrow("no addresses left");
    expect(await leftOver()).toEqual([]);
    expect(host.network.journal.map((line) => line.slice(0, 3))).toEqual(["add", "del"]);
  });

  it.each(["create", "start"] as const)("undoes all where the %s of the pause process fails", async (operation) => {
    host.runtime.failNext(operation, new Error("no such cgroup"));
    await expect(run()).rejects.toThrow("no such cgroup");
    expect(await leftOver()).toEqual([]);
    expect(host.network.journal.map((line) => line.slice(0, 3))).toEqual(["add", "del"]);
  });

  it("undoes all where the record of a finished pod cannot be written", async () => {
    const save = host.sandboxes.save.bind(host.sandboxes);
    Object.assign(host.sandboxes, {
      save: (record: { state: string }) =>
        record.state === "ready" ? Promise.reject(new Error("disk full")) : save(record as never),
    });
    await expect(run()).rejects.toThrow("disk full");
    expect(await leftOver()).toEqual([]);
  });

  it("counts on its own undo where the network's has failed", async () => {
    const cause = new Error("no addresses left");
    host.network.fail.add = new SuppressedError(new Error("plugin hung"), cause);
    await expect(run()).rejects.toBe(cause);
    expect(await leftOver()).toEqual([]);
  });

  it("keeps what could not be undone for StopPodSandbox, and tells why it failed at first", async () => {
    host.network.fail.add = new Error("no addresses left");
    host.network.fail.del = new Error("plugin is gone");
    await expect(run()).rejects.toMatchObject({ suppressed: { message: "no addresses left" } });
    const [left] = host.sandboxes.list();
    expect(left).toMatchObject({ state: "not-ready" });
    const podSandboxId = left?.id ?? "";
    expect(await mountsBelow(host.directory)).toEqual([sandboxPathsOf(host.layout, podSandboxId).netns]); // DEL needs it
    await expect(stopPodSandbox(testCall(), { podSandboxId }, host)).rejects.toThrow("plugin is gone");
    await expect(run()).rejects.toMatchObject({ code: Code.AlreadyExists });
    delete host.network.fail.del;
    await stopPodSandbox(testCall(), { podSandboxId }, host);
    expect(host.sandboxes.get(podSandboxId)?.state).toBe("stopped");
    await removePodSandbox(testCall(), { podSandboxId }, host);
    expect(await leftOver()).toEqual([]);
  });

  it("goes on when its caller leaves, and gives the retry its result", async () => {
    const caller = new AbortController();
    const first = run(testCall(caller.signal));
    caller.abort(new Error("client went away"));
    await expect(first).rejects.toThrow("client went away");
    const id = await run();
    expect(host.sandboxes.all().map((sandbox) => sandbox.id)).toEqual([id]);
  });

  it("lets a retry join the work that began while there was a network", async () => {
    const first = run();
    Object.assign(host.network, { status: () => ({ ready: false, message: "no network", skipped: [] }) });
    expect(await run()).toBe(await first);
    const metadata = { name: "other", namespace: "default", uid: "u2" };
    await expect(run(testCall(), { metadata })).rejects.toMatchObject({ code: Code.FailedPrecondition });
  });

  it("is undone by a shutdown that finds it waiting for a plugin", async () => {
    host.network.hangs = true;
    const running = run();
    running.catch(() => undefined);
    await expect.poll(() => host.network.journal).toHaveLength(1);
    await host.creations.abandonAll("the daemon is shutting down");
    await expect(running).rejects.toMatchObject({ code: Code.Aborted });
    expect(await leftOver()).toEqual([]);
  });

  it.each([
    { annotations: { "kubernetes.io/ingress-bandwidth": "fast" } },
    { metadata: { name: "a;b", namespace: "default", uid: "u1" } },
  ])("begins nothing that the network could not be told of: %j", async (config) => {
    await expect(run(testCall(), config)).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await leftOver()).toEqual([]);
    expect(host.network.journal).toEqual([]);
  });

  it("takes two pods for two whose names only read alike when joined", async () => {
    const one = await run(testCall(), { metadata: { name: "a_b", namespace: "c", uid: "u" } });
    const two = await run(testCall(), { metadata: { name: "a", namespace: "b_c", uid: "u" } });
    expect(one).not.toBe(two);
  });
});
