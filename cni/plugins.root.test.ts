import { randomBytes } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { run, watchDirectory } from "../native/index.ts";
import { createCni } from "./cni.ts";
import type { RunProcess } from "./plugin-run.ts";
import { type ContractNode, createTestLog, createTestNode, describeCniContract } from "./testing.ts";

const debianPlugins = "/usr/lib/cni";

describeCniContract("Debian's plugins", () => createRealNode(debianPlugins));

/** A node of its own: what the plugins do to "the host" they do to a network namespace that goes with the test. */
async function createRealNode(pluginDir: string): Promise<ContractNode> {
  const files = await createTestNode();
  const prefix = `berth-cni-${randomBytes(4).toString("hex")}`;
  const made: string[] = [];

  async function createNetns(): Promise<string> {
    const name = `${prefix}-${String(made.length)}`;
    made.push(name);
    await ip("netns", "add", name);
    return `/run/netns/${name}`;
  }
  const host = await createNetns();
  const runOnHost: RunProcess = ({ argv, ...rest }) =>
    run({ ...rest, argv: ["/usr/bin/nsenter", `--net=${host}`, "--", ...argv] });

  return {
    confDir: files.confDir,
    ipam: { dataDir: join(files.root, "ipam") },
    cached: () => files.cached(),
    createNetns,
    start: () =>
      createCni({
        config: { confDir: files.confDir, pluginDirs: [pluginDir], cacheDir: files.cacheDir },
        log: createTestLog(),
        run: runOnHost,
        watchDirectory,
      }),
    async removeNetns(path) {
      const name = path.split("/").at(-1) ?? "";
      made.splice(made.indexOf(name), 1);
      await ip("netns", "delete", name);
    },
    leases: () => readLeases(join(files.root, "ipam", "contract")),
    async [Symbol.asyncDispose]() {
      for (const name of made) await ip("netns", "delete", name);
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

async function ip(...args: readonly string[]): Promise<string> {
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
  const { status, stdout, stderr } = await run({
    argv: ["/usr/sbin/ip", ...args],
    env,
    signal: AbortSignal.timeout(10_000),
  });
  if (status.kind !== "exited" || status.code !== 0) throw new Error(`ip ${args.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}
