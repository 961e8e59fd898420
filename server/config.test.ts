import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { locateKey, renderKeyPath } from "./config-locate.ts";
import { configTemplate } from "./config-template.ts";
import { ConfigError, loadConfig, readEnvironment } from "./config.ts";
import type { ConfigFlags } from "./config.ts";
import { makeScratch } from "./testing.ts";

async function issuesOf(flags: ConfigFlags): Promise<readonly string[]> {
  try {
    await loadConfig(flags);
    return [];
  } catch (thrown) {
    if (thrown instanceof ConfigError) return thrown.issues;
    throw thrown;
  }
}

async function writeConfig(directory: string, toml: string, dropIns: Record<string, string> = {}): Promise<string> {
  const path = join(directory, "berth.toml");
  await writeFile(path, toml);
  await mkdir(`${path}.d`, { recursive: true });
  for (const [name, text] of Object.entries(dropIns)) await writeFile(join(`${path}.d`, name), text);
  return path;
}

test("an empty file gives the defaults, and so does the template", async () => {
  await using scratch = await makeScratch();
  const empty = await loadConfig({ config: await writeConfig(scratch.path, "") });
  expect(empty).toMatchObject({
    root: "/var/lib/berth",
    socket: "/run/berth/berth.sock",
    cgroupDriver: "cgroupfs",
    defaultRuntime: "crun",
    runtimes: { crun: { path: "crun" }, runc: { path: "runc" } },
    registries: { confFile: "/etc/containers/registries.conf", namespacedAuthDir: "/etc/crio/auth" },
  });
  expect(await loadConfig({ config: await writeConfig(scratch.path, configTemplate) })).toEqual(empty);
});

test("what is left empty is absent: no containerd directories, no further auth file", async () => {
  await using scratch = await makeScratch();
  const load = async (toml: string) => (await loadConfig({ config: await writeConfig(scratch.path, toml) })).registries;
  expect(await load('[registries]\nnamespaced_auth_dir = ""')).toEqual({
    confFile: "/etc/containers/registries.conf",
    confDir: "/etc/containers/registries.conf.d",
    shortNameAliasesFile: "/var/cache/containers/short-name-aliases.conf",
    certsDirs: ["/etc/containers/certs.d", "/etc/docker/certs.d"],
  });
  expect(await load('[registries]\nhosts_dir = "/etc/containerd/certs.d/"\nauth_file = "/a.json"')).toMatchObject({
    hostsDir: "/etc/containerd/certs.d",
    authFile: "/a.json",
  });
});

test("unknown keys and bad values of every file and flag are reported together, with key path and line", async () => {
  await using scratch = await makeScratch();
  const config = await writeConfig(
    scratch.path,
    [
      'roof = "/"',
      'root = "relative"',
      "[runtimes.crun]",
      "path = 5",
      "other = 1",
      "[registries]",
      "certs_dirs = [",
      '  "certs.d"',
      "]",
    ].join("\n"),
    { "10.toml": 'cgroup_driver = "docker"\nlog_level = 3', "20.toml": "[cni]\nplugin_dirs = []\nbin_dir = 1" },
  );
  expect((await issuesOf({ config, state: "here" })).toSorted()).toEqual(
    [
      `${config}:1: roof: is not a known key`,
      `${config}:2: root: must be an absolute path without // or . or .. in it, not "relative"`,
      `${config}:4: runtimes.crun.path: must be a string, not 5`,
      `${config}:5: runtimes.crun.other: is not a known key`,
      `${config}:7: registries.certs_dirs[0]: must be an absolute path without // or . or .. in it, not "certs.d"`,
      `${config}.d/10.toml:1: cgroup_driver: must be one of "cgroupfs", "systemd", not "docker"`,
      `${config}.d/10.toml:2: log_level: must be one of "debug", "info", "warn", "error", not 3`,
      `${config}.d/20.toml:2: cni.plugin_dirs: must name a directory`,
      `${config}.d/20.toml:3: cni.bin_dir: is not a known key`,
      `command line: state: must be an absolute path without // or . or .. in it, not "here"`,
    ].toSorted(),
  );
});

test("several files that are not TOML are reported together", async () => {
  await using scratch = await makeScratch();
  const config = await writeConfig(scratch.path, "root = \n", { "a.toml": "\n[cni\n", "b.toml": "x = 1" });
  const issues = await issuesOf({ config });
  expect(issues).toHaveLength(3);
  expect(issues[0]).toMatch(/berth\.toml:1: /);
  expect(issues[1]).toMatch(/a\.toml:2: /);
  expect(issues[2]).toBe(`${config}.d/b.toml:1: x: is not a known key`);
});

test("drop-ins are merged in the order of their names; other files there are not read; flags win", async () => {
  await using scratch = await makeScratch();
  const config = await writeConfig(scratch.path, 'log_level = "warn"\n[cni]\ndefault_network = "a"\nconf_dir = "/a"', {
    "20.toml": 'log_level = "error"\n[cni]\nconf_dir = "/b"',
    "10.toml": 'log_level = "debug"\nsocket = "/run/x.sock"\n[runtimes.kata]\npath = "/usr/bin/kata"',
    "30.toml.bak": "nonsense",
    ".40.toml": "nonsense",
  });
  const loaded = await loadConfig({ config, socket: "/run/flag.sock" });
  expect(loaded.logLevel).toBe("error");
  expect(loaded.socket).toBe("/run/flag.sock");
  expect(loaded.cni).toMatchObject({ defaultNetwork: "a", confDir: "/b" });
});

test("what only shows when all keys are known is reported too", async () => {
  await using scratch = await makeScratch();
  const config = await writeConfig(scratch.path, 'default_runtime = "kata"\nroot = "/run/berth/root"');
  expect(await issuesOf({ config })).toEqual([
    'default_runtime: names no table of runtimes: "kata"',
    'state: must not lie in root, nor root in it: "/run/berth", "/run/berth/root"',
  ]);
});

test.each([
  ['root = "/"', "root"],
  ['root = "/a/../b"', "root"],
  ['root = "/a\\nb"', "root"],
  [`socket = "/${"s".repeat(100)}"`, "socket"],
  ['monitor = "bin/conmon"', "monitor"],
  ['[runtimes."Bad_Name"]\npath = "x"', "runtimes.Bad_Name"],
  ["runtimes = 3", "runtimes"],
  ["registries = []", "registries"],
  ['[registries."h:5000"]', 'registries."h:5000"'],
  ["cni = 1979-05-27", "cni"],
])("%j is refused", async (toml, key) => {
  await using scratch = await makeScratch();
  const config = await writeConfig(scratch.path, toml);
  const issues = await issuesOf({ config });
  expect(
    issues.some((issue) => issue.startsWith(`${config}:1: ${key}: `)),
    issues.join("\n"),
  ).toBe(true);
});

test("a file that was named must exist; __proto__ is refused", async () => {
  await using scratch = await makeScratch();
  expect(await issuesOf({ config: join(scratch.path, "absent.toml") })).toEqual([
    `${join(scratch.path, "absent.toml")}: cannot be read: ENOENT`,
  ]);
  expect(await issuesOf({ config: await writeConfig(scratch.path, "[__proto__]\nroot = 1") })).toHaveLength(1);
});

test("the configuration is frozen at every depth", async () => {
  await using scratch = await makeScratch();
  const config = await loadConfig({ config: await writeConfig(scratch.path, "") });
  expect(Object.isFrozen(config)).toBe(true);
  expect(Object.isFrozen(config.cni.pluginDirs)).toBe(true);
  expect(Object.isFrozen(config.runtimes["crun"])).toBe(true);
});

test("a key's line is found in dotted, quoted and nested writing, and is absent where nothing is written", () => {
  const source = 'a.b = 1\n["x y".z]\n  "k" = 2 # c = 3\n[t]\nlong = """\nfake = 1\n"""\nreal = 1';
  expect(locateKey(source, ["a", "b"])).toBe(1);
  expect(locateKey(source, ["x y", "z", "k"])).toBe(3);
  expect(locateKey(source, ["t", "real"])).toBe(8);
  expect(locateKey(source, ["t", "absent"])).toBe(4);
  expect(locateKey(source, ["nowhere"])).toBeUndefined();
  expect(renderKeyPath(["registries", "a.b", "mirrors", 0])).toBe('registries."a.b".mirrors[0]');
});

test("a proxy goes by either spelling of its variable, and an empty one is none", () => {
  vi.stubEnv("HTTPS_PROXY", "");
  vi.stubEnv("https_proxy", "http://lower.example");
  vi.stubEnv("HTTP_PROXY", "http://upper.example");
  vi.stubEnv("http_proxy", "http://lower.example");
  try {
    expect(readEnvironment().proxies).toMatchObject({
      httpsProxy: "http://lower.example",
      httpProxy: "http://upper.example",
    });
  } finally {
    vi.unstubAllEnvs();
  }
});
