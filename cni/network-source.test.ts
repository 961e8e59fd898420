import { chmod, mkdir, rm, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { watchDirectory } from "../native/index.ts";
import { createNetworkSource, type NetworkSource } from "./network-source.ts";
import { createPluginProbe } from "./plugin-probe.ts";
import { createFakePlugins, createTestLog, createTestNode, type FakePlugins, type TestNode } from "./testing.ts";

const list = (name: string, ...types: string[]): object => ({
  name,
  cniVersion: "1.0.0",
  plugins: types.map((type) => ({ type })),
});

describe("the node's network", () => {
  let node: TestNode;
  let plugins: FakePlugins;
  let log: ReturnType<typeof createTestLog>;
  let nowMs: number;
  const opened: NetworkSource[] = [];
  beforeEach(async () => {
    node = await createTestNode();
    plugins = createFakePlugins();
    log = createTestLog();
    nowMs = 0;
  });
  afterEach(async () => {
    for (const source of opened.splice(0)) await source[Symbol.asyncDispose]();
    await node[Symbol.asyncDispose]();
  });

  async function open(
    overrides: { defaultNetwork?: string; confDir?: string; pluginDirs?: readonly string[] } = {},
  ): Promise<NetworkSource> {
    const pluginDirs = overrides.pluginDirs ?? [node.pluginDir];
    const wait = (): Promise<void> => Promise.resolve();
    const probe = createPluginProbe({ run: plugins.run, wait, log, pluginDirs });
    const config = { confDir: node.confDir, ...overrides, pluginDirs };
    const source = await createNetworkSource({ config, log, watchDirectory, probe, now: () => nowMs });
    opened.push(source);
    return source;
  }
  const message = (source: NetworkSource): string => {
    const status = source.status();
    return status.ready ? `ready: ${status.networkName}` : status.message;
  };
  const becomes = (source: NetworkSource, text: string | RegExp): Promise<unknown> =>
    vi.waitFor(() => expect(message(source)).toMatch(text), { timeout: 5000, interval: 20 });

  it("is that of the first valid file", async () => {
    await node.install("bridge");
    await node.configure("10-bad.conflist", "{");
    await node.configure("20-good.conflist", list("good", "bridge"));
    await node.configure("30-later.conflist", list("later", "absent"));
    const source = await open();
    expect(source.status()).toEqual({
      ready: true,
      networkName: "good",
      skipped: [{ file: "10-bad.conflist", reason: expect.stringContaining("not valid JSON") as unknown }],
    });
    expect(log.lines).toContainEqual(
      expect.objectContaining({
        level: "warn",
        text: "invalid cni configuration skipped",
        fields: expect.objectContaining({ file: "10-bad.conflist" }) as unknown,
      }),
    );
  });

  it("is the named one where one is named", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    await node.configure("20-b.conflist", list("b", "bridge"));
    expect(message(await open({ defaultNetwork: "b" }))).toBe("ready: b");
    expect(message(await open({ defaultNetwork: "c" }))).toBe(
      `cni plugin not initialized: network "c" not found in ${node.confDir}`,
    );
    expect(message(await open({ defaultNetwork: "" }))).toBe("ready: a");
  });

  it("says in what folder nothing was found, and what was skipped there", async () => {
    expect(message(await open())).toBe(`cni plugin not initialized: no networks found in ${node.confDir}`);
    await node.configure("10-bad.conflist", { name: "bad", plugins: [{ type: "../x" }] });
    expect(message(await open())).toBe(
      `cni plugin not initialized: no networks found in ${node.confDir}; skipped "10-bad.conflist": plugins.0.type: must be a plain file name`,
    );
  });

  it("is not ready while a plugin is missing or cannot be executed, and does not fall over to another network", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge", "late"));
    await node.configure("20-b.conflist", list("b", "bridge"));
    const source = await open();
    expect(message(source)).toBe(
      `cni plugin not initialized: network "a" (10-a.conflist): cni plugin "late" not found in "${node.pluginDir}"`,
    );
    await writeFile(join(node.pluginDir, "late"), "", { mode: 0o644 });
    await becomes(source, /cni plugin "late" is not an executable file in/);
    await chmod(join(node.pluginDir, "late"), 0o755);
    await source.refresh(AbortSignal.timeout(5000));
    expect(message(source)).toBe("ready: a");
  });

  it("follows files that come, change and go", async () => {
    await node.install("bridge");
    const source = await open();
    await node.configure("20-b.conflist", list("b", "bridge"));
    await becomes(source, "ready: b");
    await node.configure("10-a.conflist", list("a", "bridge"));
    await becomes(source, "ready: a");
    await unlink(join(node.confDir, "10-a.conflist"));
    await becomes(source, "ready: b");
    await node.configure("20-b.conflist", "{}");
    await becomes(source, /no networks found .* skipped "20-b.conflist": name: is missing/);
  });

  it("follows folders that appear later, vanish and come back", async () => {
    const confDir = join(node.root, "etc", "cni", "net.d");
    const binDir = join(node.root, "opt", "cni", "bin");
    const source = await open({ confDir, pluginDirs: [binDir] });
    expect(message(source)).toBe(`cni plugin not initialized: no networks found in ${confDir}`);
    for (let round = 0; round < 2; round += 1) {
      await mkdir(confDir, { recursive: true });
      await writeFile(join(confDir, "10-a.conflist"), JSON.stringify(list("a", "bridge")));
      await becomes(source, /"bridge" not found/);
      await mkdir(binDir, { recursive: true });
      await writeFile(join(binDir, "bridge"), "", { mode: 0o755 });
      await becomes(source, "ready: a");
      await rm(join(node.root, "etc"), { recursive: true });
      await becomes(source, /no networks found/);
      await rm(join(node.root, "opt"), { recursive: true });
    }
  });

  it("follows the folder of plugins that installers add to a network", async () => {
    await node.install("bridge", "tuning");
    await node.configure("10-a.conflist", list("a", "bridge"));
    const source = await open();
    await mkdir(join(node.confDir, "a"));
    await writeFile(join(node.confDir, "a", "10-tuning.conf"), '{"type":"tuning"}');
    await vi.waitFor(() => expect(source.current()?.plugins).toHaveLength(2), { timeout: 5000 });
    await writeFile(join(node.confDir, "a", "20-more.conf"), '{"type":"absent"}');
    await becomes(source, /"absent" not found/);
  });

  it("looks again by itself after ten seconds, for what no watch tells", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    await chmod(join(node.pluginDir, "bridge"), 0o644);
    const source = await open();
    await chmod(join(node.pluginDir, "bridge"), 0o755);
    nowMs = 10_001;
    await becomes(source, "ready: a");
  });

  it("asks a binary for its versions once, and again when it was replaced", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge", "bridge"));
    const source = await open();
    await source.refresh(AbortSignal.timeout(5000));
    expect(plugins.versionRuns).toHaveLength(1);
    await writeFile(join(node.pluginDir, "bridge"), "another", { mode: 0o755 });
    await source.refresh(AbortSignal.timeout(5000));
    expect(plugins.versionRuns).toHaveLength(2);
  });

  it.each([
    [["1.1.0", "1.0.0", "0.4.0"], ["0.4.0", "1.0.0"], "1.0.0"],
    [["1.0.0"], ["0.4.0", "1.0.0", "1.1.0"], "1.0.0"],
  ])("speaks the newest version that list %j and plugin %j share", async (cniVersions, supported, chosen) => {
    await node.install("bridge");
    plugins.supports("bridge", supported);
    await node.configure("10-a.conflist", { name: "a", cniVersions, plugins: [{ type: "bridge" }] });
    expect((await open()).current()?.cniVersion).toBe(chosen);
  });

  it("is not ready if a plugin does not know the list's version", async () => {
    await node.install("bridge", "old");
    plugins.supports("old", ["0.4.0"]);
    await node.configure("10-a.conflist", list("a", "bridge", "old"));
    expect(message(await open())).toContain('cniVersion 1.0.0 is not supported by cni plugin "old"');
  });

  it.each([
    [{ stdout: "no json" }, /"bridge" gave no valid answer to VERSION: not valid JSON/],
    [{ stdout: {} }, /"bridge" gave no valid answer to VERSION: supportedVersions: is missing/],
    [{ exitCode: 1, stdout: { code: 4, msg: "no" } }, /"bridge" failed VERSION: no/],
  ])("is not ready if a plugin answers VERSION with %j", async (answer, text) => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    plugins.behave("bridge", "VERSION", () => answer);
    expect(message(await open())).toMatch(text);
  });

  it("takes a plugin that has never heard of VERSION for one of 0.1.0", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", { name: "a", plugins: [{ type: "bridge" }] });
    plugins.behave("bridge", "VERSION", () => ({
      exitCode: 1,
      stdout: { code: 4, msg: "unknown CNI_COMMAND: VERSION" },
    }));
    expect((await open()).current()?.cniVersion).toBe("0.1.0");
  });

  it("never sends STATUS to a list below 1.1.0", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    await open();
    expect(plugins.runs).toEqual([]);
  });

  it("is as ready as the plugins of a 1.1.0 list say with STATUS", async () => {
    await node.install("bridge", "agent");
    for (const type of ["bridge", "agent"]) plugins.supports(type, ["1.1.0"]);
    let isUp = false;
    plugins.behave("agent", "STATUS", () =>
      isUp ? {} : { exitCode: 1, stdout: { code: 50, msg: "agent is starting" } },
    );
    const agent = { type: "agent", capabilities: { ips: true } };
    await node.configure("10-a.conflist", { name: "a", cniVersion: "1.1.0", plugins: [{ type: "bridge" }, agent] });
    const source = await open();
    expect(message(source)).toBe(
      'cni plugin not initialized: network "a" (10-a.conflist): cni plugin "agent" is not ready: agent is starting',
    );
    expect(source.chosen()?.name).toBe("a");
    expect(plugins.runs[1]).toMatchObject({
      command: "STATUS",
      config: { name: "a", cniVersion: "1.1.0", type: "agent" },
    });
    expect(plugins.runs[1]?.config).not.toHaveProperty("capabilities");
    expect(Object.keys(plugins.runs[1]?.env ?? {}).sort()).toEqual(["CNI_COMMAND", "CNI_PATH", "PATH"]);
    isUp = true;
    nowMs = 10_001;
    await becomes(source, "ready: a");
  });

  it("does not keep the daemon from starting while a plugin hangs, and says so", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    const answered = Promise.withResolvers<void>();
    plugins.behave("bridge", "VERSION", async () => {
      await answered.promise;
      return { stdout: { supportedVersions: ["1.0.0"] } };
    });
    const source = await open();
    expect(message(source)).toBe("cni plugin not initialized: its plugins have not answered yet");
    await expect(source.refresh(AbortSignal.abort(new Error("gone")))).rejects.toThrow("gone");
    answered.resolve();
    await becomes(source, "ready: a");
  });

  it("logs a change of state once", async () => {
    await node.install("bridge");
    await node.configure("10-a.conflist", list("a", "bridge"));
    const source = await open();
    await source.refresh(AbortSignal.timeout(5000));
    await source.refresh(AbortSignal.timeout(5000));
    expect(log.lines.filter(({ level }) => level !== "debug")).toEqual([
      {
        level: "info",
        fields: { network: "a", file: "10-a.conflist", cniVersion: "1.0.0" },
        text: "pod network ready",
      },
    ]);
  });
});
