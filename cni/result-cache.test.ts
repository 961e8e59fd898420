import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createResultCache, type ResultCache } from "./result-cache.ts";
import { createTestNode, type TestNode } from "./testing.ts";

const entry = {
  networkName: "net",
  containerId: "pod-a",
  ifName: "eth0",
  netnsPath: "/run/netns/a",
  config: '{"name":"net"}',
  cniArgs: [["IgnoreUnknown", "1"]],
  capabilityArgs: { mac: "02:00:00:00:00:01" },
  result: { cniVersion: "1.0.0" },
} as const;
// As libcni 1.1.2 wrote it on a node of containerd's.
const libcniEntry =
  '{"kind":"cniCacheV1","containerId":"pod-a","config":"eyJuYW1lIjoibmV0In0=","ifName":"eth0","networkName":"net",' +
  '"netns":"/run/netns/a","cniArgs":[["IgnoreUnknown","1"]],"capabilityArgs":{"mac":"02:00:00:00:00:01"},' +
  '"result":{"cniVersion":"1.0.0"}}';

describe("the result cache", () => {
  let node: TestNode;
  let cache: ResultCache;
  let results: string;
  beforeEach(async () => {
    node = await createTestNode();
    cache = createResultCache(node.cacheDir);
    results = join(node.cacheDir, "results");
  });
  afterEach(() => node[Symbol.asyncDispose]());
  async function put(name: string, text: string): Promise<void> {
    await mkdir(results, { recursive: true });
    await writeFile(join(results, name), text);
  }

  it("writes libcni's files, for root's eyes only", async () => {
    await cache.write(entry);
    expect(await readFile(join(results, "net-pod-a-eth0"), "utf8")).toBe(libcniEntry);
    expect((await stat(results)).mode & 0o777).toBe(0o700);
    expect((await stat(join(results, "net-pod-a-eth0"))).mode & 0o777).toBe(0o600);
  });

  it("reads libcni's files", async () => {
    await put("net-pod-a-eth0", libcniEntry);
    expect(await cache.find("pod-a", "eth0")).toEqual([entry]);
    expect(await cache.list()).toEqual([entry]);
  });

  it("reads the bare results from before libcni 0.8", async () => {
    await put("net-pod-a-eth0", '{"cniVersion":"0.3.1","ips":[]}');
    expect(await cache.find("pod-a", "eth0")).toEqual([
      {
        networkName: "net",
        containerId: "pod-a",
        ifName: "eth0",
        netnsPath: "",
        result: { cniVersion: "0.3.1", ips: [] },
      },
    ]);
    expect(await cache.list()).toEqual([]);
  });

  it.each(["", "{", "[]", '{"kind":"cniCacheV2"}', '{"kind":"cniCacheV1","config":"%%%"}'])(
    "knows a damaged file by its name: %j",
    async (text) => {
      await put("net-pod-a-eth0", text);
      const [found] = await cache.find("pod-a", "eth0");
      expect(found).toEqual({
        networkName: "net",
        containerId: "pod-a",
        ifName: "eth0",
        netnsPath: "",
        result: undefined,
      });
      if (found) await cache.remove(found);
      expect(await node.cached()).toEqual([]);
    },
  );

  it("is not stopped by what is no file or too large", async () => {
    await mkdir(join(results, "net-pod-a-eth0"), { recursive: true });
    await put("net-pod-b-eth0", "x".repeat(4 * 1024 * 1024 + 1));
    await cache.write({ ...entry, containerId: "pod-c" });
    expect((await cache.list()).map(({ containerId }) => containerId)).toEqual(["pod-c"]);
    expect(await cache.find("pod-b", "eth0")).toMatchObject([{ networkName: "net", containerId: "pod-b" }]);
  });

  it("does not take a file for another container's whose name it ends like", async () => {
    await cache.write({ ...entry, containerId: "x-pod-a" });
    expect(await cache.find("pod-a", "eth0")).toEqual([]);
    expect(await cache.find("x-pod-a", "eth0")).toHaveLength(1);
  });

  it("believes no file that names another one, whose removal would be the other's", async () => {
    await put("net-pod-a-eth0", libcniEntry.replace('"networkName":"net"', '"networkName":"../../x"'));
    await put("net-pod-b-eth0", libcniEntry);
    expect(await cache.list()).toEqual([]);
    expect(await cache.find("pod-b", "eth0")).toEqual([]);
  });

  it("is empty without its folder, and removing from it succeeds", async () => {
    expect(await cache.find("pod-a", "eth0")).toEqual([]);
    expect(await cache.list()).toEqual([]);
    await cache.remove(entry);
  });

  it("sweeps up what a crash left of a write", async () => {
    await cache.write(entry);
    await put(".net-pod-a-eth0.0123456789ab.tmp", "{");
    await cache.sweep();
    expect(await node.cached()).toEqual(["net-pod-a-eth0"]);
  });
});
