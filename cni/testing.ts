import { mkdir, mkdtemp, readdir, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Call, Logger } from "../cri-api/index.ts";
import type { Attachment } from "./attachment.ts";
import type { Cni } from "./cni.ts";
import type { JsonObject } from "./json.ts";
import type { RunProcess } from "./plugin-run.ts";

/** One process that was asked for. */
export interface RecordedRun {
  readonly command: string;
  readonly type: string;
  readonly env: Readonly<Record<string, string>>;
  readonly config: JsonObject;
}

/** `stdout` that is no text is written as JSON. */
export interface FakeAnswer {
  readonly exitCode?: number;
  readonly stdout?: unknown;
  readonly stderr?: string;
}

export type FakePlugin = (run: RecordedRun, signal: AbortSignal) => FakeAnswer | Promise<FakeAnswer>;

export interface FakePlugins {
  readonly run: RunProcess;
  /** Every process but VERSION, in the order they were started. */
  readonly runs: RecordedRun[];
  readonly versionRuns: RecordedRun[];
  /** Replaces what a plugin does for one verb. */
  behave(type: string, command: string, plugin: FakePlugin): void;
  supports(type: string, versions: readonly string[]): void;
  /** Container ids that hold an address. */
  leases(): readonly string[];
}

const allVersions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/** Plugins without processes: `bridge` gives addresses, `tuning` refuses sysctls named "net.none", others pass on. */
export function createFakePlugins(): FakePlugins {
  const runs: RecordedRun[] = [];
  const versionRuns: RecordedRun[] = [];
  const replaced = new Map<string, FakePlugin>();
  const versions = new Map<string, readonly string[]>();
  const leases = new Map<string, number>();

  function bridge({ command, env, config }: RecordedRun): FakeAnswer {
    const key = `${env["CNI_CONTAINERID"]}/${env["CNI_IFNAME"]}`;
    if (command === "DEL") leases.delete(key);
    if (command !== "ADD") return {};
    if (leases.has(key)) return { exitCode: 1, stdout: { code: 999, msg: `duplicate allocation for ${key}` } };
    const taken = new Set(leases.values());
    let host = 2;
    while (taken.has(host)) host += 1;
    leases.set(key, host);
    const interfaces = [{ name: "cni0" }, { name: "veth1" }, { name: env["CNI_IFNAME"], sandbox: env["CNI_NETNS"] }];
    const ips = [{ interface: 2, address: `10.88.77.${String(host)}/24`, gateway: "10.88.77.1" }];
    return { stdout: { cniVersion: config["cniVersion"], interfaces, ips, routes: [{ dst: "0.0.0.0/0" }] } };
  }

  function answer(run: RecordedRun, signal: AbortSignal): FakeAnswer | Promise<FakeAnswer> {
    const instead = replaced.get(`${run.type} ${run.command}`);
    if (instead !== undefined) return instead(run, signal);
    if (run.command === "VERSION")
      return { stdout: { cniVersion: "1.0.0", supportedVersions: versions.get(run.type) ?? allVersions } };
    if (run.type === "bridge") return bridge(run);
    const isRefused = run.command === "ADD" && JSON.stringify(run.config).includes('"net.none"');
    if (isRefused)
      return { exitCode: 1, stdout: { code: 999, msg: "open /proc/sys/net/none: no such file or directory" } };
    return run.command === "ADD" ? { stdout: run.config["prevResult"] } : {};
  }

  return {
    runs,
    versionRuns,
    behave: (type, command, plugin) => void replaced.set(`${type} ${command}`, plugin),
    supports: (type, list) => void versions.set(type, list),
    leases: () => [...leases.keys()].map((key) => key.split("/", 1)[0] ?? ""),
    async run({ argv, env, input, signal, maxOutputBytes = Infinity }) {
      signal.throwIfAborted();
      const type = argv[0].split("/").at(-1) ?? "";
      const command = env["CNI_COMMAND"] ?? "";
      const recorded = { command, type, env, config: JSON.parse(input ?? "{}") as JsonObject };
      (command === "VERSION" ? versionRuns : runs).push(recorded);
      const given = await answer(recorded, signal);
      const bytes = Buffer.from(typeof given.stdout === "string" ? given.stdout : JSON.stringify(given.stdout ?? ""));
      return {
        status: { kind: "exited", code: given.exitCode ?? 0 },
        stdout: bytes.subarray(0, maxOutputBytes),
        stderr: Buffer.from(given.stderr ?? ""),
        truncated: bytes.length > maxOutputBytes,
      };
    },
  };
}

/** Directories of one test's node. */
export interface TestNode extends AsyncDisposable {
  readonly root: string;
  readonly confDir: string;
  readonly pluginDir: string;
  readonly cacheDir: string;
  configure(file: string, content: unknown): Promise<void>;
  install(...types: string[]): Promise<void>;
  /** File names of the result cache. */
  cached(): Promise<readonly string[]>;
}

export async function createTestNode(): Promise<TestNode> {
  const root = await mkdtemp(join(tmpdir(), "berth-cni-"));
  const [confDir, pluginDir, cacheDir] = [join(root, "net.d"), join(root, "bin"), join(root, "cache")];
  await Promise.all([confDir, pluginDir].map((dir) => mkdir(dir)));
  return {
    root,
    confDir,
    pluginDir,
    cacheDir,
    async configure(file, content) {
      await writeFile(join(confDir, file), typeof content === "string" ? content : JSON.stringify(content));
    },
    async install(...types) {
      await Promise.all(types.map((type) => writeFile(join(pluginDir, type), "", { mode: 0o755 })));
    },
    cached: () => readdir(join(cacheDir, "results")).catch(() => []),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  };
}

export function createTestLog(): Logger & { readonly lines: { level: string; fields: object; text: string }[] } {
  const lines: { level: string; fields: object; text: string }[] = [];
  const at = (level: string) => (fields: object, text: string) => void lines.push({ level, fields, text });
  const log = { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), child: () => log };
  return log;
}

export function createTestCall(signal: AbortSignal = AbortSignal.timeout(30_000)): Call {
  return { requestId: "test", rpc: "RunPodSandbox", signal, log: createTestLog() };
}

export function createAttachment(containerId: string, overrides: Partial<Attachment> = {}): Attachment {
  return {
    containerId,
    netnsPath: "/proc/self/ns/net",
    ifName: "eth0",
    pod: { name: "web", namespace: "default", uid: "0a1b" },
    portMappings: [],
    ...overrides,
  };
}

/** A node whose plugins are `bridge` (with `host-local`), `portmap` and `tuning`, real or not. */
export interface ContractNode extends AsyncDisposable {
  readonly confDir: string;
  /** A daemon's start: reads everything from disk again. */
  start(): Promise<Cni>;
  createNetns(): Promise<string>;
  removeNetns(path: string): Promise<void>;
  /** Container ids that hold an address of the network. */
  leases(): Promise<readonly string[]>;
  cached(): Promise<readonly string[]>;
  /** Keys for the `ipam` part of the bridge. */
  readonly ipam: JsonObject;
}

export function contractList(node: Pick<ContractNode, "ipam">, sysctl: JsonObject = {}): JsonObject {
  return {
    cniVersion: "1.0.0",
    name: "contract",
    plugins: [
      {
        type: "bridge",
        bridge: "berth-ct0",
        isGateway: true,
        ipMasq: true,
        ipam: {
          type: "host-local",
          ranges: [[{ subnet: "10.88.77.0/24" }]],
          routes: [{ dst: "0.0.0.0/0" }],
          ...node.ipam,
        },
      },
      { type: "tuning", sysctl },
      { type: "portmap", capabilities: { portMappings: true }, snat: true },
    ],
  };
}

/** What plugins and our handling of them promise together; fakes and real plugins both pass. */
export function describeCniContract(name: string, createNode: () => Promise<ContractNode>): void {
  describe(`CNI contract: ${name}`, () => {
    let node: ContractNode;
    let cni: Cni;
    beforeEach(async () => {
      node = await createNode();
      await writeFile(join(node.confDir, "10-contract.conflist"), JSON.stringify(contractList(node)));
      cni = await node.start();
    });
    afterEach(async () => {
      await cni[Symbol.asyncDispose]();
      await node[Symbol.asyncDispose]();
    });
    const soon = (): AbortSignal => AbortSignal.timeout(20_000);
    async function attachNew(containerId: string, overrides: Partial<Attachment> = {}): Promise<Attachment> {
      const attachment = createAttachment(containerId, { netnsPath: await node.createNetns(), ...overrides });
      await cni.add(createTestCall(), attachment);
      return attachment;
    }

    it("is ready with the network's name", () => {
      expect(cni.status()).toEqual({ ready: true, networkName: "contract", skipped: [] });
    });

    it("ADD gives an address, remembers it across a restart, and DEL takes it back", async () => {
      const attachment = createAttachment("pod-a", { netnsPath: await node.createNetns() });
      const result = await cni.add(createTestCall(), attachment);
      expect(result.ips).toHaveLength(1);
      expect(result.ips[0]).toMatch(/^10\.88\.77\.\d+$/);
      expect(await node.leases()).toEqual(["pod-a"]);
      await cni[Symbol.asyncDispose]();
      cni = await node.start();
      expect(await cni.cachedResult(attachment)).toEqual(result);
      await cni.del(attachment, soon());
      expect(await node.leases()).toEqual([]);
      expect(await cni.cachedResult(attachment)).toBeUndefined();
      expect(await node.cached()).toEqual([]);
    });

    it("pods started at the same time get addresses of their own", async () => {
      const netns = await Promise.all([1, 2, 3, 4].map(() => node.createNetns()));
      const attachments = netns.map((netnsPath, index) => createAttachment(`pod-${String(index)}`, { netnsPath }));
      const results = await Promise.all(attachments.map((attachment) => cni.add(createTestCall(), attachment)));
      expect(new Set(results.flatMap(({ ips }) => ips)).size).toBe(4);
      await Promise.all(attachments.map((attachment) => cni.del(attachment, soon())));
      expect(await node.leases()).toEqual([]);
    });

    it("CHECK finds a fresh attachment well", async () => {
      const attachment = await attachNew("pod-a");
      await expect(cni.check(createTestCall(), attachment)).resolves.toBeUndefined();
      await cni.del(attachment, soon());
    });

    it("DEL succeeds twice, and for a pod that never had a network", async () => {
      const attachment = await attachNew("pod-a");
      await cni.del(attachment, soon());
      await cni.del(attachment, soon());
      await cni.del(createAttachment("pod-never", { netnsPath: "" }), soon());
      expect(await node.leases()).toEqual([]);
    });

    it("DEL frees the address of a pod whose namespace is gone, in a daemon started since (reboot)", async () => {
      const attachment = await attachNew("pod-a", {
        portMappings: [{ hostPort: 18080, containerPort: 80, protocol: "tcp", hostIP: "" }],
      });
      await cni[Symbol.asyncDispose]();
      await node.removeNetns(attachment.netnsPath);
      cni = await node.start();
      await cni.del({ ...attachment, portMappings: [] }, soon());
      expect(await node.leases()).toEqual([]);
    });

    it("DEL frees the address after the network's file was removed", async () => {
      const attachment = await attachNew("pod-a");
      await cni[Symbol.asyncDispose]();
      await unlink(join(node.confDir, "10-contract.conflist"));
      cni = await node.start();
      expect(cni.status().ready).toBe(false);
      await cni.del(attachment, soon());
      expect(await node.leases()).toEqual([]);
    });

    it("a failed ADD leaves nothing and names the plugin and its words", async () => {
      await cni[Symbol.asyncDispose]();
      const list = contractList(node, { "net.none": "1" });
      await writeFile(join(node.confDir, "10-contract.conflist"), JSON.stringify(list));
      cni = await node.start();
      const attachment = createAttachment("pod-a", { netnsPath: await node.createNetns() });
      await expect(cni.add(createTestCall(), attachment)).rejects.toMatchObject({
        name: "CriError",
        message: expect.stringMatching(/cni plugin "tuning" failed ADD .*"pod-a": .*net.none.*no such file/) as unknown,
      });
      expect(await node.leases()).toEqual([]);
      expect(await node.cached()).toEqual([]);
    });

    it("garbage collection deletes what nobody names and keeps the rest", async () => {
      const kept = await attachNew("pod-kept");
      const stale = await attachNew("pod-stale");
      await cni[Symbol.asyncDispose]();
      await node.removeNetns(stale.netnsPath);
      cni = await node.start();
      await cni.collectGarbage([kept], soon());
      expect(await node.leases()).toEqual(["pod-kept"]);
      await cni.del(kept, soon());
    });
  });
}
