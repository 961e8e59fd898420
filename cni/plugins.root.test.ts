import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { pinNamespaces, run, unpinNamespace, watchDirectory } from "../native/index.ts";
import { createCni } from "./cni.ts";
import type { RunProcess } from "./plugin-run.ts";
import {
  type ContractNode,
  contractList,
  createAttachment,
  createTestCall,
  createTestLog,
  createTestNode,
  describeCniContract,
} from "./testing.ts";

const debianPlugins = "/usr/lib/cni";
const sidDirectory = join(import.meta.dirname, "..", ".cache", "cni-sid");
const sidPlugins = join(sidDirectory, "usr", "lib", "cni");
const soon = (): AbortSignal => AbortSignal.timeout(20_000);

/** A node of its own: what the plugins do to "the host" they do to a network namespace that goes with the test. */
interface RealNode extends ContractNode {
  readonly pluginDirs: string[];
  readonly cacheDir: string;
  readonly ran: string[];
  /** Runs a program in the node's or a pod's network namespace; its standard output. */
  within(netns: string, ...argv: readonly [string, ...string[]]): Promise<string>;
  readonly host: string;
}

async function createRealNode(pluginDir: string): Promise<RealNode> {
  const files = await createTestNode();
  const made = new Set<string>();
  const ran: string[] = [];
  const pluginDirs = [pluginDir];

  async function createNetns(): Promise<string> {
    const directory = join(files.root, randomBytes(4).toString("hex"));
    await mkdir(directory);
    await pinNamespaces({ directory, kinds: ["net"] });
    made.add(join(directory, "net"));
    return join(directory, "net");
  }
  const host = await createNetns();
  const within = (netns: string, ...argv: readonly [string, ...string[]]): Promise<string> =>
    execute("/usr/bin/nsenter", `--net=${netns}`, "--", ...argv);
  const runOnHost: RunProcess = ({ argv, ...rest }) => {
    ran.push(`${rest.env["CNI_COMMAND"] ?? ""} ${argv[0].split("/").at(-1) ?? ""}`);
    return run({ ...rest, argv: ["/usr/bin/nsenter", `--net=${host}`, "--", ...argv] });
  };

  return {
    host,
    ran,
    within,
    pluginDirs,
    confDir: files.confDir,
    cacheDir: files.cacheDir,
    ipam: { dataDir: join(files.root, "ipam") },
    cached: () => files.cached(),
    createNetns,
    start: () =>
      createCni({
        config: { confDir: files.confDir, pluginDirs, cacheDir: files.cacheDir },
        log: createTestLog(),
        run: runOnHost,
        watchDirectory,
      }),
    async removeNetns(path) {
      made.delete(path);
      await unpinNamespace(path);
    },
    leases: () => readLeases(join(files.root, "ipam", "contract")),
    async [Symbol.asyncDispose]() {
      for (const path of made) await unpinNamespace(path);
      await files[Symbol.asyncDispose]();
    },
  };
}

/** host-local keeps a file per address; its first line is the container that holds it. */
async function readLeases(dataDir: string): Promise<readonly string[]> {
  const names = await readdir(dataDir).catch(() => []);
  const files = names.filter((name) => /^\d+\./.test(name)).sort();
  const texts = await Promise.all(files.map((name) => readFile(join(dataDir, name), "utf8")));
  return texts.map((text) => text.split(/\r?\n/, 1)[0] ?? "");
}

async function execute(...argv: readonly [string, ...string[]]): Promise<string> {
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
  const { status, stdout, stderr } = await run({ argv, env, signal: AbortSignal.timeout(100_000) });
  if (status.kind !== "exited" || status.code !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}

beforeAll(() => execute("/bin/sh", join(import.meta.dirname, "sid-plugins.sh"), sidDirectory), 120_000);

describeCniContract("Debian's plugins, spec 1.0.0", () => createRealNode(debianPlugins));
describeCniContract("sid's plugins, spec 1.0.0", () => createRealNode(sidPlugins));

describe("real plugins", () => {
  let node: RealNode;
  beforeEach(async () => {
    node = await createRealNode(debianPlugins);
  });
  afterEach(() => node[Symbol.asyncDispose]());
  const configure = (list: object): Promise<void> =>
    writeFile(join(node.confDir, "10-contract.conflist"), JSON.stringify(list));
  const addressesOf = async (netns: string): Promise<string> =>
    node.within(netns, "ip", "-o", "address", "show", "eth0");

  it("a host port leads to the pod while it lives, and no rule of it is left", async () => {
    await configure(contractList(node));
    await using cni = await node.start();
    const portMappings = [{ hostPort: 18080, containerPort: 80, protocol: "tcp", hostIP: "" }] as const;
    const attachment = createAttachment("pod-a", { netnsPath: await node.createNetns(), portMappings });
    const { ips } = await cni.add(createTestCall(), attachment);
    expect(await addressesOf(attachment.netnsPath)).toContain(`${ips[0] ?? ""}/24`);
    expect(await node.within(node.host, "nft", "list", "ruleset")).toMatch(/18080/);
    await cni.del(attachment, soon());
    const rules = await node.within(node.host, "nft", "list", "ruleset");
    expect(rules).not.toContain("18080");
    expect(rules).not.toContain(ips[0]);
    expect(await node.within(node.host, "ip", "-o", "link")).not.toContain("veth");
  });

  it("a pod gets the address, hardware address and bandwidth it asks for", async () => {
    const bridge = { type: "bridge", bridge: "berth-ct1", ipam: { type: "static" }, capabilities: { ips: true } };
    const rest = [
      { type: "tuning", capabilities: { mac: true } },
      { type: "bandwidth", capabilities: { bandwidth: true } },
    ];
    await configure({ name: "contract", cniVersion: "1.0.0", plugins: [bridge, ...rest] });
    await using cni = await node.start();
    const attachment = createAttachment("pod-a", {
      netnsPath: await node.createNetns(),
      ips: ["10.99.0.7/24", "fd00:99::7/64"],
      mac: "02:00:00:00:00:07",
      bandwidth: { ingressRate: 10_000_000, egressRate: 20_000_000 },
    });
    const { ips } = await cni.add(createTestCall(), attachment);
    expect(ips).toEqual(["10.99.0.7", "fd00:99::7"]);
    expect(await addressesOf(attachment.netnsPath)).toContain("10.99.0.7/24");
    expect(await node.within(attachment.netnsPath, "ip", "link", "show", "eth0")).toContain("02:00:00:00:00:07");
    expect(await node.within(node.host, "tc", "qdisc", "show")).toMatch(
      /tbf .*rate 10Mbit[^]*tbf .*rate 20Mbit|tbf .*rate 20Mbit[^]*tbf .*rate 10Mbit/,
    );
    await cni.check(createTestCall(), attachment);
    await cni.del(attachment, soon());
    expect(await node.within(node.host, "tc", "qdisc", "show")).not.toContain("tbf");
  });

  it.each(["0.2.0", "0.3.1", "0.4.0"])(
    "a list of version %s works with results of that version",
    async (cniVersion) => {
      await configure({ ...contractList(node), cniVersion, plugins: [{ ...firstPlugin(contractList(node)) }] });
      await using cni = await node.start();
      const attachment = createAttachment("pod-a", { netnsPath: await node.createNetns() });
      const result = await cni.add(createTestCall(), attachment);
      expect(result.raw["cniVersion"]).toBe(cniVersion);
      expect(result.ips).toHaveLength(1);
      expect(await cni.cachedResult(attachment)).toEqual(result);
      await cni.del(attachment, soon());
      expect(await node.leases()).toEqual([]);
    },
  );

  it("a legacy single-plugin file works (loopback)", async () => {
    await writeFile(
      join(node.confDir, "10-lo.conf"),
      JSON.stringify({ name: "lo", cniVersion: "0.4.0", type: "loopback" }),
    );
    await using cni = await node.start();
    const attachment = createAttachment("pod-a", { netnsPath: await node.createNetns(), ifName: "lo" });
    expect((await cni.add(createTestCall(), attachment)).ips).toEqual(["127.0.0.1", "::1"]);
    await cni.del(attachment, soon());
  });

  it("Debian's plugins are never sent GC or STATUS, and a 1.1.0 list is told to be too new for them", async () => {
    await configure(contractList(node));
    await using cni = await node.start();
    await cni.collectGarbage([], soon());
    expect(node.ran.toSorted()).toEqual(["VERSION bridge", "VERSION portmap", "VERSION tuning"]);
    await configure({ ...contractList(node), cniVersion: "1.1.0" });
    await using newer = await node.start();
    expect(newer.status()).toMatchObject({
      ready: false,
      message: expect.stringContaining('cniVersion 1.1.0 is not supported by cni plugin "bridge"') as unknown,
    });
    await configure({ ...contractList(node), cniVersions: ["1.0.0", "1.1.0"] });
    await using both = await node.start();
    expect(both.status()).toMatchObject({ ready: true });
  });

  it("plugins of 1.1.0 are asked with STATUS and told with GC what is alive, what the cache has forgotten included", async () => {
    node.pluginDirs.splice(0, 1, sidPlugins);
    // sid's plugins accept GC but do nothing for it yet, so what they are told is read by one of ours.
    const told = join(node.cacheDir, "..", "told");
    await script(
      "listener",
      `
      case "$CNI_COMMAND" in
        VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
        ADD) echo '{"cniVersion":"1.1.0"}' ;;
        GC) cat > ${told} ;;
      esac`,
    );
    const list = contractList(node);
    await configure({
      ...list,
      cniVersion: "1.1.0",
      plugins: [{ type: "listener" }, ...(list["plugins"] as readonly object[])],
    });
    await using first = await node.start();
    expect(first.status()).toMatchObject({ ready: true });
    expect(node.ran.slice(-4)).toEqual(["STATUS listener", "STATUS bridge", "STATUS tuning", "STATUS portmap"]);
    const [kept, stale] = [
      createAttachment("pod-kept", { netnsPath: await node.createNetns() }),
      createAttachment("pod-stale", { netnsPath: await node.createNetns() }),
    ];
    const { raw } = await first.add(createTestCall(), kept);
    expect(raw["cniVersion"]).toBe("1.1.0");
    await first.add(createTestCall(), stale);
    await unlink(join(node.cacheDir, "results", "contract-pod-kept-eth0"));
    await using second = await node.start();
    await second.collectGarbage([kept], soon());
    expect(node.ran.slice(-4)).toEqual(["GC listener", "GC bridge", "GC tuning", "GC portmap"]);
    const valid = [{ containerID: "pod-kept", ifname: "eth0" }];
    expect(JSON.parse(await readFile(told, "utf8"))).toEqual({
      type: "listener",
      name: "contract",
      cniVersion: "1.1.0",
      "cni.dev/valid-attachments": valid,
      "cni.dev/attachments": valid,
    });
    expect(await node.leases()).toEqual(["pod-kept"]);
  });

  it("a plugin that says it is not ready is believed until it says otherwise", async () => {
    const flag = join(node.cacheDir, "..", "is-up");
    await script(
      "agent",
      `
      case "$CNI_COMMAND" in
        VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
        STATUS) [ -e ${flag} ] || { echo '{"cniVersion":"1.1.0","code":50,"msg":"agent is starting"}'; exit 1; } ;;
      esac`,
    );
    await configure({ name: "contract", cniVersion: "1.1.0", plugins: [{ type: "agent" }] });
    await using cni = await node.start();
    expect(cni.status()).toMatchObject({
      ready: false,
      message: expect.stringContaining('"agent" is not ready: agent is starting') as unknown,
    });
    await writeFile(flag, "");
    await writeFile(join(node.confDir, "touch"), "");
    await vi.waitFor(() => expect(cni.status()).toMatchObject({ ready: true }), { timeout: 5000 });
  });

  it("a plugin that hangs with a child, ignoring SIGTERM, is killed with it when the call ends", async () => {
    const pids = join(node.cacheDir, "..", "pids");
    await script(
      "stuck",
      `
      case "$CNI_COMMAND" in
        VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'; exit ;;
        DEL) exit ;;
      esac
      trap '' TERM
      sleep 1000 & echo "$$ $!" > ${pids}; wait`,
    );
    await configure({ name: "contract", cniVersion: "1.0.0", plugins: [{ type: "stuck" }] });
    await using cni = await node.start();
    const caller = new AbortController();
    const adding = cni.add(
      createTestCall(caller.signal),
      createAttachment("pod-a", { netnsPath: await node.createNetns() }),
    );
    const outcome = expect(adding).rejects.toMatchObject({
      code: 4,
      message: expect.stringContaining("did not finish in time") as unknown,
    });
    const started = async (): Promise<readonly number[]> =>
      // the file is there before what is in it
      (await readFile(pids, "utf8").catch(() => "")).trim().split(" ").map(Number);
    await expect.poll(started).toHaveLength(2);
    caller.abort(new DOMException("late", "TimeoutError"));
    await outcome;
    for (const pid of await started()) await expect.poll(() => stateOf(pid)).toMatch(/^(gone|Z)$/);
    expect(await node.cached()).toEqual([]);
  });

  it.each([
    ["floods", "head -c 3000000 /dev/zero", /gave no valid result|wrote more than 1048576 bytes/],
    ["dies of a signal", "kill -SEGV $$", /was killed by signal 11/],
    ["fails without a word", "exit 3", /exited with code 3 and said nothing/],
    ["speaks on stderr only", "echo 'no route' >&2; exit 1", /exited with code 1: no route/],
    ["leaves a child that keeps its output open", "sleep 30 & exit 1", /exited with code 1 and said nothing/],
  ])("a plugin that %s fails the ADD in plain words", async (_, body, words) => {
    await script(
      "odd",
      `
      [ "$CNI_COMMAND" = VERSION ] && { echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'; exit; }
      [ "$CNI_COMMAND" = ADD ] || exit 0
      ${body}`,
    );
    await configure({ name: "contract", cniVersion: "1.0.0", plugins: [{ type: "odd" }] });
    await using cni = await node.start();
    const adding = cni.add(createTestCall(), createAttachment("pod-a", { netnsPath: await node.createNetns() }));
    await expect(adding).rejects.toMatchObject({ code: 13, message: expect.stringMatching(words) as unknown });
  });

  async function script(type: string, body: string): Promise<void> {
    const dir = join(node.confDir, "..", "bin");
    await writeFile(join(dir, type), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    node.pluginDirs.push(dir);
  }
});

function firstPlugin(list: ReturnType<typeof contractList>): object {
  const [plugin] = list["plugins"] as readonly object[];
  return plugin ?? {};
}

async function stateOf(pid: number | undefined): Promise<string> {
  const stat = await readFile(`/proc/${String(pid)}/stat`, "utf8").catch(() => "");
  return stat === "" ? "gone" : (/\) (\S)/.exec(stat)?.[1] ?? "");
}
