import { mkdir, readFile, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Cni, createCni } from "./cni.ts";
import {
  createAttachment,
  createFakePlugins,
  createTestCall,
  createTestLog,
  createTestNode,
  type FakeAnswer,
  type FakePlugins,
  type TestNode,
} from "./testing.ts";

const soon = (): AbortSignal => AbortSignal.timeout(10_000);
const refusing =
  (code: number, msg = "no"): (() => FakeAnswer) =>
  () => ({ exitCode: 1, stdout: { code, msg } });

describe("attachments", () => {
  let node: TestNode;
  let plugins: FakePlugins;
  let log: ReturnType<typeof createTestLog>;
  let tellChange = (): void => undefined;
  const opened: Cni[] = [];
  beforeEach(async () => {
    node = await createTestNode();
    log = createTestLog();
    plugins = createFakePlugins();
    await node.install("bridge", "tuning", "portmap");
  });
  afterEach(async () => {
    for (const cni of opened.splice(0)) await cni[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  const portmap = { type: "portmap", snat: true, capabilities: { portMappings: true, dns: false } };
  async function open(fields: object = {}): Promise<Cni> {
    const list = {
      name: "net",
      cniVersion: "1.0.0",
      plugins: [{ type: "bridge" }, { type: "tuning" }, portmap],
      ...fields,
    };
    await node.configure("10-net.conflist", list);
    const cni = await createCni({
      config: { confDir: node.confDir, pluginDirs: ["/nowhere", node.pluginDir], cacheDir: node.cacheDir },
      log,
      run: plugins.run,
      watchDirectory: (_path, onEvent) => {
        tellChange = () => onEvent({ name: "10-net.conflist" });
        return { [Symbol.asyncDispose]: () => Promise.resolve() };
      },
    });
    opened.push(cni);
    return cni;
  }
  const started = (): string[] => plugins.runs.map(({ command, type }) => `${command} ${type}`);
  const undone = ["DEL portmap", "DEL tuning", "DEL bridge"];

  it("ADD runs the list in order, each plugin with the result of the one before", async () => {
    const cni = await open();
    const result = await cni.add(createTestCall(), createAttachment("pod-a"));
    expect(started()).toEqual(["ADD bridge", "ADD tuning", "ADD portmap"]);
    expect(plugins.runs.map(({ config }) => config["prevResult"])).toEqual([undefined, result.raw, result.raw]);
    expect(result.ips).toEqual(["10.88.77.2"]);
  });

  it("ADD starts one process per plugin and no other", async () => {
    const cni = await open();
    const before = plugins.versionRuns.length;
    await cni.add(createTestCall(), createAttachment("pod-a"));
    expect(plugins.runs).toHaveLength(3);
    expect(plugins.versionRuns).toHaveLength(before);
  });

  it("a plugin gets the network's name and version, and of the pod's wishes those it can grant", async () => {
    const cni = await open();
    const mapping = { hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "" } as const;
    const dns = { servers: ["10.0.0.10"], searches: [], options: [] };
    await cni.add(createTestCall(), createAttachment("pod-a", { portMappings: [mapping], dns }));
    const [bridge, , last] = plugins.runs;
    expect(bridge?.config).toEqual({ type: "bridge", name: "net", cniVersion: "1.0.0" });
    const { prevResult: _, ...config } = last?.config ?? {};
    expect(config).toEqual({
      type: "portmap",
      snat: true,
      name: "net",
      cniVersion: "1.0.0",
      runtimeConfig: { portMappings: [mapping] },
    });
  });

  it("a plugin's environment is PATH and CNI_*", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    expect(plugins.runs[0]?.env).toEqual({
      PATH: expect.stringContaining("/usr/sbin") as unknown,
      CNI_COMMAND: "ADD",
      CNI_CONTAINERID: "pod-a",
      CNI_NETNS: "/proc/self/ns/net",
      CNI_IFNAME: "eth0",
      CNI_ARGS:
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=pod-a;K8S_POD_UID=0a1b",
      CNI_PATH: `/nowhere:${node.pluginDir}`,
    });
  });

  it("a wish that no plugin grants is told to the operator", async () => {
    const cni = await open({ plugins: [{ type: "bridge" }] });
    const mapping = { hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "" } as const;
    const log = createTestLog();
    await cni.add({ ...createTestCall(), log }, createAttachment("pod-a", { portMappings: [mapping] }));
    expect(log.lines).toContainEqual({
      level: "warn",
      fields: { podSandboxId: "pod-a", network: "net", unmet: ["portMappings"] },
      text: "no cni plugin grants what the pod asks for",
    });
  });

  it("the attachment is on disk before the first plugin runs, and without result until the last has", async () => {
    const cni = await open();
    const seen: unknown[] = [];
    const look = async (): Promise<void> => {
      const text = await readFile(join(node.cacheDir, "results", "net-pod-a-eth0"), "utf8");
      seen.push("result" in (JSON.parse(text) as object));
    };
    plugins.behave("tuning", "ADD", async ({ config }) => {
      await look();
      return { stdout: config["prevResult"] };
    });
    await cni.add(createTestCall(), createAttachment("pod-a"));
    await look();
    expect(seen).toEqual([false, true]);
  });

  it.each([
    [1, 9],
    [2, 9],
    [3, 9],
    [4, 9],
    [5, 13],
    [6, 9],
    [7, 9],
    [11, 14],
    [50, 14],
    [51, 14],
    [100, 13],
    [999, 13],
  ])("a plugin's error %i becomes status %i", async (cniCode, code) => {
    const cni = await open();
    plugins.behave("tuning", "ADD", refusing(cniCode, "its words"));
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({
      code,
      message: 'cni plugin "tuning" failed ADD of network "net" for pod sandbox "pod-a": its words',
    });
  });

  it.each([
    ["an error", refusing(7)],
    ["garbage", () => ({ stdout: "\u0000garbage" })],
    ["an empty answer", () => ({})],
    ["a result of another kind", () => ({ stdout: { cniVersion: "1.0.0", ips: [{ address: "everywhere" }] } })],
    ["a result of a version from the future", () => ({ stdout: { cniVersion: "9.9.9" } })],
    ["a flood", () => ({ stdout: "x".repeat(2 ** 21) })],
  ])("ADD that gets %s deletes the whole list backwards and forgets the attachment", async (_, answer) => {
    const cni = await open();
    plugins.behave("tuning", "ADD", answer);
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({ name: "CriError" });
    expect(started()).toEqual(["ADD bridge", "ADD tuning", ...undone]);
    expect(plugins.leases()).toEqual([]);
    expect(await node.cached()).toEqual([]);
  });

  it("DEL after a failed ADD is not held up by a plugin that fails it too, and is still owed", async () => {
    const cni = await open();
    plugins.behave("tuning", "ADD", refusing(11, "first cause"));
    plugins.behave("tuning", "DEL", refusing(11, "second cause"));
    const attempt = cni.add(createTestCall(), createAttachment("pod-a"));
    await expect(attempt).rejects.toMatchObject({
      suppressed: { code: 14, message: expect.stringContaining("first cause") as unknown },
      error: { message: expect.stringContaining("second cause") as unknown },
    });
    await expect(attempt).rejects.toBeInstanceOf(SuppressedError);
    expect(started().slice(2)).toEqual(undone);
    expect(plugins.leases()).toEqual([]);
    plugins.behave("tuning", "DEL", () => ({}));
    await cni.del(createAttachment("pod-a"), soon());
    expect(await node.cached()).toEqual([]);
  });

  it("ADD whose call ends while a plugin hangs is undone under a deadline of its own", async () => {
    const cni = await open();
    const caller = new AbortController();
    plugins.behave("tuning", "ADD", (_, signal) => {
      const { promise, reject } = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => reject(signal.reason));
      caller.abort(new DOMException("late", "TimeoutError"));
      return promise;
    });
    await expect(cni.add(createTestCall(caller.signal), createAttachment("pod-a"))).rejects.toMatchObject({
      code: 4,
      message: 'cni plugin "tuning" did not finish in time during ADD',
    });
    expect(plugins.leases()).toEqual([]);
    expect(await node.cached()).toEqual([]);
  });

  it("a plugin that hangs costs its own pod only", async () => {
    const cni = await open();
    const release = Promise.withResolvers<void>();
    plugins.behave("tuning", "ADD", async ({ env, config }) => {
      if (env["CNI_CONTAINERID"] === "pod-hung") await release.promise;
      return { stdout: config["prevResult"] };
    });
    const hung = cni.add(createTestCall(), createAttachment("pod-hung"));
    await cni.add(createTestCall(), createAttachment("pod-a"));
    await cni.del(createAttachment("pod-a"), soon());
    release.resolve();
    await hung;
  });

  it("the first ADD goes ahead of the others again when the network has changed", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    const release = Promise.withResolvers<void>();
    plugins.behave("portmap", "ADD", async ({ config }) => {
      await release.promise;
      return { stdout: config["prevResult"] };
    });
    await node.configure("10-net.conflist", {
      name: "net",
      cniVersion: "0.4.0",
      plugins: [{ type: "bridge" }, portmap],
    });
    tellChange();
    const ready = { fields: { cniVersion: "0.4.0" }, text: "pod network ready" };
    await expect.poll(() => log.lines.at(-1)).toMatchObject(ready);
    const adding = ["pod-b", "pod-c"].map((id) => cni.add(createTestCall(), createAttachment(id)));
    await expect.poll(started).toContain("ADD portmap");
    release.resolve();
    await Promise.all(adding);
    expect(started().slice(3)).toEqual(["ADD bridge", "ADD portmap", "ADD bridge", "ADD portmap"]);
  });

  it("verbs of one container wait for each other", async () => {
    const cni = await open();
    const adding = cni.add(createTestCall(), createAttachment("pod-a"));
    const deleting = cni.del(createAttachment("pod-a"), soon());
    await Promise.all([adding, deleting]);
    expect(started()).toEqual(["ADD bridge", "ADD tuning", "ADD portmap", ...undone]);
  });

  it("a second ADD of the same attachment is refused", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({ code: 6 });
    expect(plugins.runs).toHaveLength(3);
    const again = await open();
    await expect(again.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({ code: 6 });
  });

  it("an ADD that a crash cut short is deleted before it is tried again", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    const file = join(node.cacheDir, "results", "net-pod-a-eth0");
    const { result: _, ...cut } = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    await writeFile(file, JSON.stringify(cut));
    const restarted = await open();
    plugins.runs.length = 0;
    expect(await restarted.cachedResult(createAttachment("pod-a"))).toBeUndefined();
    await restarted.add(createTestCall(), createAttachment("pod-a"));
    expect(started()).toEqual([...undone, "ADD bridge", "ADD tuning", "ADD portmap"]);
    expect(plugins.runs[0]?.config).not.toHaveProperty("prevResult");
  });

  it("ADD that cannot be recorded starts no plugin and tells no folder's name", async () => {
    const cni = await open();
    await writeFile(node.cacheDir, "");
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({
      code: 13,
      message: 'network attachment of pod sandbox "pod-a" cannot be recorded (ENOTDIR)',
    });
    expect(plugins.runs).toEqual([]);
  });

  it("ADD whose result cannot be recorded is undone", async () => {
    const cni = await open();
    plugins.behave("portmap", "ADD", async ({ config }) => {
      await rm(node.cacheDir, { recursive: true });
      await writeFile(node.cacheDir, "");
      return { stdout: config["prevResult"] };
    });
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({
      suppressed: { code: 13, message: expect.stringContaining("cannot be recorded (ENOTDIR)") as unknown },
    });
    expect(plugins.leases()).toEqual([]);
  });

  it("ADD without a usable network is unavailable, and says why", async () => {
    const cni = await open({ plugins: [{ type: "absent" }] });
    await expect(cni.add(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({
      code: 14,
      message: expect.stringMatching(/^cni plugin not initialized: .*"absent" not found/) as unknown,
    });
    await node.install("absent");
    plugins.behave("absent", "ADD", () => ({ stdout: { cniVersion: "1.0.0" } }));
    expect(await cni.add(createTestCall(), createAttachment("pod-a"))).toMatchObject({ ips: [] });
  });

  it("ADD without a namespace is refused", async () => {
    const cni = await open();
    await expect(cni.add(createTestCall(), createAttachment("pod-a", { netnsPath: "" }))).rejects.toMatchObject({
      code: 3,
    });
  });

  it("DEL runs backwards with what ADD was given, whatever the files say by now", async () => {
    const cni = await open();
    const mapping = { hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "" } as const;
    const { raw } = await cni.add(createTestCall(), createAttachment("pod-a", { portMappings: [mapping] }));
    const given = plugins.runs.map(({ config, env }) => ({ ...config, CNI_ARGS: env["CNI_ARGS"] }));
    plugins.runs.length = 0;
    const changed = await open({ name: "other", plugins: [{ type: "bridge", changed: true }] });
    await changed.del(createAttachment("pod-a", { pod: { name: "", namespace: "", uid: "" } }), soon());
    const asked = plugins.runs.map(({ config, env }) => ({ ...config, CNI_ARGS: env["CNI_ARGS"] }));
    expect(started()).toEqual(undone);
    expect(asked).toEqual(given.map((config) => ({ ...config, prevResult: raw })).toReversed());
    expect(await node.cached()).toEqual([]);
  });

  it("DEL stops at the first failure and is tried again from the start", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    plugins.behave("tuning", "DEL", refusing(11, "later"));
    await expect(cni.del(createAttachment("pod-a"), soon())).rejects.toMatchObject({ code: 14 });
    expect(plugins.leases()).toEqual(["pod-a"]);
    expect(await node.cached()).toHaveLength(1);
    plugins.behave("tuning", "DEL", () => ({}));
    plugins.runs.length = 0;
    await cni.del(createAttachment("pod-a"), soon());
    expect(started()).toEqual(undone);
  });

  it("DEL takes 'container unknown' for success", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    plugins.behave("portmap", "DEL", refusing(3));
    await cni.del(createAttachment("pod-a"), soon());
    expect(plugins.leases()).toEqual([]);
  });

  it("DEL starts no process for what it has deleted before", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    await cni.del(createAttachment("pod-a"), soon());
    plugins.runs.length = 0;
    await cni.del(createAttachment("pod-a"), soon());
    expect(plugins.runs).toEqual([]);
    await cni.add(createTestCall(), createAttachment("pod-a"));
    await cni.del(createAttachment("pod-a"), soon());
    expect(plugins.leases()).toEqual([]);
  });

  it("DEL of an attachment without a trace uses the present network, and succeeds without one", async () => {
    const cni = await open();
    await cni.del(createAttachment("pod-lost", { netnsPath: "/gone" }), soon());
    expect(started()).toEqual(undone);
    expect(plugins.runs[0]?.env["CNI_NETNS"]).toBe("");
    expect(plugins.runs[0]?.config).not.toHaveProperty("prevResult");
    await unlink(join(node.confDir, "10-net.conflist"));
    const bare = await createCni({
      config: { confDir: join(node.root, "absent"), pluginDirs: [node.pluginDir], cacheDir: node.cacheDir },
      log: createTestLog(),
      run: plugins.run,
      watchDirectory: () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
    });
    opened.push(bare);
    await bare.del(createAttachment("pod-other"), soon());
    expect(plugins.runs).toHaveLength(3);
  });

  it("DEL works for a damaged entry with the network of its name, and says so if there is none", async () => {
    const cni = await open();
    await mkdir(join(node.cacheDir, "results"), { recursive: true });
    await writeFile(join(node.cacheDir, "results", "net-pod-a-eth0"), "{");
    await cni.del(createAttachment("pod-a"), soon());
    expect(started()).toEqual(undone);
    await writeFile(join(node.cacheDir, "results", "gone-pod-b-eth0"), "{");
    await expect(cni.del(createAttachment("pod-b"), soon())).rejects.toMatchObject({
      code: 9,
      message: 'network "gone" of pod sandbox "pod-b" is neither cached nor configured any more',
    });
  });

  it("DEL passes a namespace that is none any more as empty", async () => {
    const cni = await open();
    await cni.add(createTestCall(), createAttachment("pod-a"));
    const unmounted = join(node.root, "netns");
    await writeFile(unmounted, "");
    await cni.del(createAttachment("pod-a", { netnsPath: unmounted }), soon());
    expect(plugins.runs.filter(({ command }) => command === "DEL").map(({ env }) => env["CNI_NETNS"])).toEqual([
      "",
      "",
      "",
    ]);
  });

  it("errors do not tell where namespaces lie", async () => {
    const cni = await open();
    plugins.behave("tuning", "ADD", ({ env }) => refusing(100, `failed to open netns "${env["CNI_NETNS"]}"`)());
    const attempt = cni.add(createTestCall(), createAttachment("pod-a"));
    await expect(attempt).rejects.toThrow('failed to open netns "<netns>"');
  });

  it("a list of an old version is spoken to in that version", async () => {
    const cni = await open({ cniVersion: "0.2.0", plugins: [{ type: "bridge" }] });
    plugins.behave("bridge", "ADD", () => ({ stdout: { ip4: { ip: "10.1.0.5/24" } } }));
    const result = await cni.add(createTestCall(), createAttachment("pod-a"));
    expect(result).toEqual({ ips: ["10.1.0.5"], raw: { cniVersion: "0.2.0", ip4: { ip: "10.1.0.5/24" } } });
    expect(await cni.cachedResult(createAttachment("pod-a"))).toEqual(result);
    await cni.del(createAttachment("pod-a"), soon());
    expect(plugins.runs[1]?.config).not.toHaveProperty("prevResult");
  });

  it("a result of another version than the list's is converted before it is passed on", async () => {
    const cni = await open({ cniVersion: "0.4.0" });
    plugins.behave("bridge", "ADD", () => ({ stdout: { cniVersion: "1.0.0", ips: [{ address: "fd00::5/64" }] } }));
    const { raw } = await cni.add(createTestCall(), createAttachment("pod-a"));
    expect(raw).toEqual({ cniVersion: "0.4.0", ips: [{ version: "6", address: "fd00::5/64" }] });
    expect(plugins.runs[1]?.config["prevResult"]).toEqual(raw);
  });

  describe("CHECK", () => {
    it("gives every plugin the result of ADD, in order, and tells what one found", async () => {
      const cni = await open();
      const { raw } = await cni.add(createTestCall(), createAttachment("pod-a"));
      plugins.runs.length = 0;
      await cni.check(createTestCall(), createAttachment("pod-a"));
      expect(started()).toEqual(["CHECK bridge", "CHECK tuning", "CHECK portmap"]);
      expect(plugins.runs.map(({ config }) => config["prevResult"])).toEqual([raw, raw, raw]);
      plugins.behave("tuning", "CHECK", refusing(100, "link is down"));
      await expect(cni.check(createTestCall(), createAttachment("pod-a"))).rejects.toThrow(
        /"tuning" failed CHECK .*: link is down/,
      );
    });

    it.each([true, "true"])("is not run where disableCheck is %j", async (disableCheck) => {
      const cni = await open({ disableCheck });
      await cni.add(createTestCall(), createAttachment("pod-a"));
      await cni.check(createTestCall(), createAttachment("pod-a"));
      expect(plugins.runs).toHaveLength(3);
    });

    it("fails for a list below 0.4.0, and without an ADD", async () => {
      const cni = await open({ cniVersion: "0.3.1" });
      await expect(cni.check(createTestCall(), createAttachment("pod-a"))).rejects.toMatchObject({ code: 9 });
      await cni.add(createTestCall(), createAttachment("pod-a"));
      await expect(cni.check(createTestCall(), createAttachment("pod-a"))).rejects.toThrow(
        "CHECK needs cniVersion 0.4.0, it has 0.3.1",
      );
    });
  });

  describe("garbage collection", () => {
    const modern = { cniVersion: "1.1.0" };
    beforeEach(() => {
      for (const type of ["bridge", "tuning", "portmap"]) plugins.supports(type, ["1.0.0", "1.1.0"]);
    });
    const collected = (): unknown[] =>
      plugins.runs.filter(({ command }) => command === "GC").map(({ config }) => config["cni.dev/valid-attachments"]);

    it("tells every plugin which attachments are alive, by both keys", async () => {
      const cni = await open(modern);
      plugins.runs.length = 0;
      await cni.collectGarbage([{ containerId: "pod-a", ifName: "eth0" }], soon());
      expect(started()).toEqual(["GC bridge", "GC tuning", "GC portmap"]);
      const valid = [{ containerID: "pod-a", ifname: "eth0" }];
      expect(plugins.runs[2]?.config).toEqual({
        type: "portmap",
        snat: true,
        name: "net",
        cniVersion: "1.1.0",
        "cni.dev/valid-attachments": valid,
        "cni.dev/attachments": valid,
      });
      expect(Object.keys(plugins.runs[2]?.env ?? {}).sort()).toEqual(["CNI_COMMAND", "CNI_PATH", "PATH"]);
    });

    it("is not sent to a list below 1.1.0, but stale cached attachments are deleted", async () => {
      const first = await open();
      await first.add(createTestCall(), createAttachment("pod-stale"));
      await first.add(createTestCall(), createAttachment("pod-kept"));
      const restarted = await open();
      plugins.runs.length = 0;
      await restarted.collectGarbage([{ containerId: "pod-kept", ifName: "eth0" }], soon());
      expect(started()).toEqual(undone);
      expect(plugins.runs[0]?.env).toMatchObject({
        CNI_CONTAINERID: "pod-stale",
        CNI_ARGS: expect.stringContaining("K8S_POD_NAME=web") as unknown,
      });
      expect(plugins.leases()).toEqual(["pod-kept"]);
    });

    it.each([true, "true"])("does nothing where disableGC is %j", async (disableGC) => {
      const first = await open({ ...modern, disableGC });
      await first.add(createTestCall(), createAttachment("pod-stale"));
      const restarted = await open({ ...modern, disableGC });
      plugins.runs.length = 0;
      await restarted.collectGarbage([], soon());
      expect(started().filter((run) => !run.startsWith("STATUS"))).toEqual([]);
    });

    it("takes what was added meanwhile for alive", async () => {
      const cni = await open(modern);
      const seenBefore = [{ containerId: "pod-a", ifName: "eth0" }];
      await cni.add(createTestCall(), createAttachment("pod-new"));
      await cni.collectGarbage(seenBefore, soon());
      expect(plugins.leases()).toEqual(["pod-new"]);
      expect(collected()[0]).toEqual([
        { containerID: "pod-a", ifname: "eth0" },
        { containerID: "pod-new", ifname: "eth0" },
      ]);
    });

    it("leaves other networks' attachments alone", async () => {
      const first = await open({ name: "other" });
      await first.add(createTestCall(), createAttachment("pod-other"));
      const cni = await open();
      await cni.collectGarbage([], soon());
      expect(plugins.leases()).toEqual(["pod-other"]);
    });

    it("runs beside no other verb", async () => {
      const cni = await open(modern);
      const collecting = Promise.withResolvers<void>();
      plugins.behave("bridge", "GC", async () => {
        await collecting.promise;
        return {};
      });
      const collection = cni.collectGarbage([], soon());
      await expect.poll(started).toContain("GC bridge");
      const adding = cni.add(createTestCall(), createAttachment("pod-a"));
      await cni.cachedResult(createAttachment("pod-a")); // as long as an ADD takes to begin
      expect(started()).not.toContain("ADD bridge");
      collecting.resolve();
      await Promise.all([collection, adding]);
      expect(started().slice(-3)).toEqual(["ADD bridge", "ADD tuning", "ADD portmap"]);
    });

    it("tries every plugin and every stale attachment before it tells the failures", async () => {
      const first = await open(modern);
      for (const id of ["pod-a", "pod-b"]) await first.add(createTestCall(), createAttachment(id));
      const cni = await open(modern);
      plugins.runs.length = 0;
      plugins.behave("portmap", "DEL", ({ env }) => (env["CNI_CONTAINERID"] === "pod-a" ? refusing(11, "busy")() : {}));
      plugins.behave("bridge", "GC", refusing(100, "torn"));
      await expect(cni.collectGarbage([], soon())).rejects.toMatchObject({
        code: 14,
        message: expect.stringMatching(
          /failed DEL .*"pod-a": busy; .*"bridge" failed GC of network "net": torn/,
        ) as unknown,
      });
      expect(plugins.leases()).toEqual(["pod-a"]);
      expect(collected()).toHaveLength(3);
    });

    it("is unavailable while the network is not ready", async () => {
      const cni = await open({ plugins: [{ type: "absent" }] });
      await expect(cni.collectGarbage([], soon())).rejects.toMatchObject({ code: 14 });
    });
  });
});
