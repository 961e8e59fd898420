import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { run } from "../native/index.ts";
import { loadConfigDirectory } from "./config-directory.ts";
import { createTestNode, type TestNode } from "./testing.ts";

const list = (name: string, fields: object = {}): object => ({
  name,
  cniVersion: "1.0.0",
  plugins: [{ type: "bridge" }],
  ...fields,
});

describe("the configuration directory", () => {
  let node: TestNode;
  beforeEach(async () => {
    node = await createTestNode();
  });
  afterEach(() => node[Symbol.asyncDispose]());

  it("is read in the order of the files' names, whatever their kind", async () => {
    await node.configure("20-b.conflist", list("b"));
    await node.configure("10-c.json", { name: "c", type: "ptp" });
    await node.configure("15-a.conf", { name: "a", type: "ptp" });
    await node.configure("05-readme.txt", "not a network");
    await mkdir(join(node.confDir, "00-folder.conflist"));
    const { lists, skipped } = await loadConfigDirectory(node.confDir);
    expect(lists.map(({ file, list: { name } }) => [file, name])).toEqual([
      ["10-c.json", "c"],
      ["15-a.conf", "a"],
      ["20-b.conflist", "b"],
    ]);
    expect(skipped).toEqual([]);
  });

  it("is empty where it is absent or no directory", async () => {
    expect(await loadConfigDirectory(join(node.root, "absent"))).toEqual({ lists: [], skipped: [] });
    await writeFile(join(node.root, "file"), "");
    expect(await loadConfigDirectory(join(node.root, "file"))).toEqual({ lists: [], skipped: [] });
  });

  it("skips what is invalid, with the reason", async () => {
    await node.configure("10-bad.conflist", list("bad", { plugins: [{ type: "../x" }] }));
    await node.configure("11-worse.conflist", "{");
    await node.configure("12-big.conflist", " ".repeat(1024 * 1024 + 1));
    await node.configure("20-good.conflist", list("good"));
    const { lists, skipped } = await loadConfigDirectory(node.confDir);
    expect(lists.map(({ file }) => file)).toEqual(["20-good.conflist"]);
    expect(skipped).toEqual([
      { file: "10-bad.conflist", reason: "plugins.0.type: must be a plain file name" },
      { file: "11-worse.conflist", reason: expect.stringContaining("not valid JSON") as unknown },
      { file: "12-big.conflist", reason: "larger than 1048576 bytes" },
    ]);
  });

  it("is not held up by a FIFO", async () => {
    const signal = AbortSignal.timeout(5000);
    await run({ argv: ["/usr/bin/mkfifo", join(node.confDir, "10-fifo.conflist")], env: {}, signal });
    expect((await loadConfigDirectory(node.confDir)).skipped).toEqual([
      { file: "10-fifo.conflist", reason: "not a regular file" },
    ]);
  });

  it("follows symbolic links, and passes over those that lead nowhere", async () => {
    await node.configure("data", list("linked"));
    await symlink("data", join(node.confDir, "10-a.conflist"));
    await symlink("nowhere", join(node.confDir, "20-b.conflist"));
    const { lists, skipped } = await loadConfigDirectory(node.confDir);
    expect(lists.map(({ file }) => file)).toEqual(["10-a.conflist"]);
    expect(skipped).toEqual([]);
  });

  it("appends the plugins of the network's folder, unless told not to", async () => {
    await node.configure("10-net.conflist", list("net"));
    await node.configure("20-closed.conflist", list("closed", { loadOnlyInlinedPlugins: true }));
    for (const name of ["net", "closed"]) {
      await mkdir(join(node.confDir, name));
      await writeFile(join(node.confDir, name, "20-b.conf"), '{"type":"tuning"}');
      await writeFile(join(node.confDir, name, "10-a.conf"), '{"type":"portmap"}');
      await writeFile(join(node.confDir, name, "30-c.conflist"), "ignored");
    }
    const { lists } = await loadConfigDirectory(node.confDir);
    expect(lists.map(({ list: { plugins } }) => plugins.map(({ type }) => type))).toEqual([
      ["bridge", "portmap", "tuning"],
      ["bridge"],
    ]);
  });

  it("may hold a network whose plugins are all in its folder", async () => {
    await node.configure("10-net.conflist", list("net", { plugins: undefined }));
    expect((await loadConfigDirectory(node.confDir)).skipped).toEqual([
      { file: "10-net.conflist", reason: 'plugins: none in the file and none in its folder "net"' },
    ]);
    await mkdir(join(node.confDir, "net"));
    await writeFile(join(node.confDir, "net", "10-a.conf"), '{"type":"../x"}');
    expect((await loadConfigDirectory(node.confDir)).skipped).toEqual([
      { file: "10-net.conflist", reason: "10-a.conf: type: must be a plain file name" },
    ]);
    await writeFile(join(node.confDir, "net", "10-a.conf"), '{"type":"ptp"}');
    expect((await loadConfigDirectory(node.confDir)).lists[0]?.list.plugins.map(({ type }) => type)).toEqual(["ptp"]);
  });
});
