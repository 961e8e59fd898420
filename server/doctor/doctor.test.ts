import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { MountEntry } from "../../native/index.ts";
import { loadConfig } from "../config.ts";
import type { Config } from "../config.ts";
import { makeScratch } from "../testing.ts";
import { examine } from "./doctor.ts";
import { renderFindings } from "./finding.ts";
import type { Finding } from "./finding.ts";
import type { Machine } from "./machine.ts";

let config: Config;
beforeAll(async () => {
  await using scratch = await makeScratch();
  await writeFile(join(scratch.path, "berth.toml"), 'root = "/data/berth"');
  config = await loadConfig({ config: join(scratch.path, "berth.toml") });
});

function mountOf(fsType: string, mountPoint: string, superOptions: readonly string[]): MountEntry {
  return {
    id: 1,
    parentId: 0,
    device: "0:1",
    root: "/",
    source: fsType,
    options: ["rw"],
    shared: undefined,
    master: undefined,
    fsType,
    mountPoint,
    superOptions,
  };
}

const hybridMounts = [
  ...["cpu", "cpuset", "memory", "pids"].map((name) => mountOf("cgroup", `/sys/fs/cgroup/${name}`, ["rw", name])),
  mountOf("cgroup2", "/sys/fs/cgroup/unified", ["rw"]),
];

const bridgeList = JSON.stringify({
  plugins: [{ type: "bridge", ipam: { type: "host-local" } }, { type: "portmap" }],
});

const roomy = { type: 0xef53, totalBytes: 2 ** 40, freeBytes: 2 ** 39, totalInodes: 1e6, freeInodes: 9e5 };

function createHealthyMachine(over: Partial<Machine> = {}, files: Readonly<Record<string, string>> = {}): Machine {
  const texts: Readonly<Record<string, string>> = {
    "/proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4\n",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow",
    "/sys/fs/cgroup/unified/cgroup.controllers": "\n",
    "/proc/sys/fs/inotify/max_user_instances": "8192\n",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
    ...Object.fromEntries(
      ["net", "ipc", "uts", "mnt", "pid"].map((kind) => [`/proc/sys/user/max_${kind}_namespaces`, "1000\n"]),
    ),
    "/etc/cni/net.d/10-bridge.conflist": bridgeList,
    ...files,
  };
  const names: Readonly<Record<string, readonly string[]>> = {
    "/etc/cni/net.d": ["10-bridge.conflist", "99-readme.txt"],
    "/usr/lib/cni": ["bridge", "host-local", "portmap"],
  };
  return {
    userId: 0,
    findProgram: async (name) => `/usr/bin/${name}`,
    kernelRelease: "6.1.0-44-amd64",
    versionOf: async (program) => `${program} version 1`,
    runtimeFacts: async () => ({
      name: "crun",
      version: "1.21",
      features: { userNamespaces: true, recursiveReadOnlyMounts: true, networkDevices: false },
    }),
    readText: async (path) => texts[path],
    listNames: async (directory) => names[directory] ?? [],
    fileSystemOf: async (path) => (path.startsWith("/run/") ? { ...roomy, type: 0x0102_1994 } : roomy),
    whyTaken: async () => undefined,
    registryProblems: async () => [],
    capabilities: async () => 2n ** 41n - 1n,
    cgroupLayout: async () => "hybrid",
    mounts: async () => hybridMounts,
    ...over,
  };
}

async function problemsOf(machine: Machine): Promise<readonly Finding[]> {
  return (await examine(machine, config)).filter((finding) => finding.level !== "ok");
}

test("a machine that has everything has no problem", async () => {
  expect(await problemsOf(createHealthyMachine())).toEqual([]);
});

test("on a hybrid layout the controllers left to v2 are named with their cure", async () => {
  const machine = createHealthyMachine({}, { "/sys/fs/cgroup/unified/cgroup.controllers": "hugetlb misc\n" });
  expect(await problemsOf(machine)).toEqual([
    {
      level: "fail",
      subject: "cgroups",
      text: "hybrid, and not mounted on v1: hugetlb, misc; crun 1.8.1 refuses to run containers here",
      cure:
        "mkdir -p /sys/fs/cgroup/hugetlb && mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb\n" +
        "mkdir -p /sys/fs/cgroup/misc && mount -t cgroup -o misc cgroup /sys/fs/cgroup/misc",
    },
  ]);
});

test("a controller that is nowhere is named, on v1 and on v2", async () => {
  const v1 = createHealthyMachine({ cgroupLayout: async () => "v1", mounts: async () => hybridMounts.slice(1, 4) });
  expect((await problemsOf(v1)).map((finding) => finding.text)).toEqual(["v1, without: cpu; their limits fail"]);
  const v2 = createHealthyMachine(
    { cgroupLayout: async () => "v2", mounts: async () => [] },
    { "/sys/fs/cgroup/cgroup.controllers": "cpu cpuset memory\n" },
  );
  expect((await problemsOf(v2)).map((finding) => finding.text)).toEqual(["v2, without: pids; their limits fail"]);
});

test("a missing default runtime or monitor fails, another runtime warns", async () => {
  const present = new Set(["conmon", "iptables"]);
  const findProgram = async (name: string): Promise<string | undefined> =>
    present.has(name) ? `/bin/${name}` : undefined;
  expect(await problemsOf(createHealthyMachine({ findProgram }))).toEqual([
    { level: "fail", subject: "runtime crun", text: '"crun" is not there', cure: "apt-get install crun" },
    {
      level: "warn",
      subject: "runtime runc",
      text: '"runc" is not there; this handler will be left out',
      cure: "apt-get install runc",
    },
  ]);
  present.clear();
  const subjects = (await problemsOf(createHealthyMachine({ findProgram }))).map(
    ({ level, subject }) => `${level} ${subject}`,
  );
  expect(subjects).toEqual(["fail runtime crun", "warn runtime runc", "fail monitor", "warn host ports"]);
});

test("a program that does not run is told with its reason", async () => {
  const versionOf = async (program: string): Promise<string> => {
    if (program.endsWith("conmon")) throw new Error("exec format error");
    return "1";
  };
  expect((await problemsOf(createHealthyMachine({ versionOf }))).map((finding) => finding.text)).toEqual([
    "/usr/bin/conmon does not run: exec format error",
  ]);
});

test.each([
  [
    "no configuration",
    async () => [],
    {},
    "no configuration in /etc/cni/net.d; only pods on the host's network will run",
  ],
  [
    "one that is no JSON",
    undefined,
    { "/etc/cni/net.d/10-bridge.conflist": "{" },
    "/etc/cni/net.d/10-bridge.conflist is not JSON",
  ],
  [
    "one whose plugins are missing",
    undefined,
    { "/etc/cni/net.d/10-bridge.conflist": '{"type":"macvlan","ipam":{"type":"dhcp"}}' },
    "plugins of 10-bridge.conflist are in none of /opt/cni/bin, /usr/lib/cni: macvlan, dhcp",
  ],
])("the network: %s", async (_name, listNames, files, text) => {
  const machine = createHealthyMachine(listNames ? { listNames } : {}, files);
  expect((await problemsOf(machine)).map((finding) => finding.text)).toEqual([text]);
});

test("missing rights are named", async () => {
  const withoutResource = createHealthyMachine({ capabilities: async () => (2n ** 41n - 1n) & ~(1n << 24n) });
  expect((await problemsOf(withoutResource)).map((finding) => finding.level)).toEqual(["warn"]);
  const user = createHealthyMachine({ userId: 1000, capabilities: async () => 0n });
  const levels = (await problemsOf(user)).map(({ level, subject }) => `${level} ${subject}`);
  expect(levels).toEqual(["fail user", "fail capabilities", "warn capabilities"]);
});

test("no overlay, an overlay below, and no seccomp are told", async () => {
  const bare = createHealthyMachine(
    {},
    { "/proc/filesystems": "nodev\toverlayish\n", "/proc/sys/kernel/seccomp/actions_avail": "" },
  );
  expect((await problemsOf(bare)).map(({ level, subject }) => `${level} ${subject}`)).toEqual([
    "fail overlayfs",
    "warn seccomp",
  ]);
  const nested = createHealthyMachine({ fileSystemOf: async () => ({ ...roomy, type: 0x794c_7630 }) });
  expect((await problemsOf(nested))[0]?.text).toContain('"/data/berth" lies on an overlay itself');
});

test("findings are rendered one a line, cures below them, and counted", () => {
  expect(
    renderFindings([
      { level: "ok", subject: "a", text: "fine" },
      { level: "fail", subject: "b", text: "broken", cure: "one\ntwo" },
    ]),
  ).toBe("ok    a: fine\nFAIL  b: broken\n      one\n      two\n1 ok, 0 warnings, 1 failures\n");
});

test("AppArmor without its parser is named: containers would run without a profile", async () => {
  const files = { "/sys/module/apparmor/parameters/enabled": "Y\n" };
  const findProgram = async (name: string) => (name === "apparmor_parser" ? undefined : `/usr/bin/${name}`);
  expect(await problemsOf(createHealthyMachine({}, files))).toEqual([]);
  expect(await problemsOf(createHealthyMachine({ findProgram }, files))).toEqual([
    expect.objectContaining({ level: "warn", subject: "apparmor", cure: "apt-get install apparmor" }),
  ]);
});

test("a SELinux policy that knows no containers is named: its kernel would refuse their labels", async () => {
  const files = { "/sys/fs/selinux/enforce": "1", "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=default\n" };
  const contexts = { "/etc/selinux/default/contexts/lxc_contexts": 'process = "u:r:container_t:s0"\n' };
  expect(await problemsOf(createHealthyMachine({}, { ...files, ...contexts }))).toEqual([]);
  expect(await problemsOf(createHealthyMachine({}, files))).toEqual([
    expect.objectContaining({ level: "warn", subject: "selinux", text: expect.stringContaining('policy "default"') }),
  ]);
});

test("an old kernel, and one that allows no namespaces, fail", async () => {
  const old = createHealthyMachine({ kernelRelease: "5.4.0-26-generic" });
  expect((await problemsOf(old)).map(({ level, text }) => `${level} ${text}`)).toEqual([
    "fail 5.4.0-26-generic is older than 5.6; no file of an image can be opened",
  ]);
  const files = { "/proc/sys/user/max_net_namespaces": "0\n", "/proc/sys/user/max_uts_namespaces": "0\n" };
  expect(await problemsOf(createHealthyMachine({}, files))).toEqual([
    {
      level: "fail",
      subject: "kernel",
      text: "no namespaces may be made of: net, uts",
      cure: "sysctl -w user.max_net_namespaces=65536\nsysctl -w user.max_uts_namespaces=65536",
    },
  ]);
});

test("settings that a full node runs into are named with their cure", async () => {
  const files = {
    "/proc/sys/fs/inotify/max_user_instances": "128\n",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "0\n",
  };
  expect((await problemsOf(createHealthyMachine({}, files))).map(({ cure }) => cure)).toEqual([
    "sysctl -w fs.inotify.max_user_instances=8192",
    "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1",
  ]);
});

test("a cgroup driver that does not suit the init system is told", async () => {
  const listNames = async (directory: string): Promise<readonly string[]> =>
    directory === "/run/systemd/system" ? ["x"] : await createHealthyMachine().listNames(directory);
  const files = { "/sys/fs/cgroup/cgroup.controllers": "cpu cpuset memory pids\n" };
  const onSystemd = createHealthyMachine({ listNames, cgroupLayout: async () => "v2", mounts: async () => [] }, files);
  expect((await problemsOf(onSystemd)).map(({ level, subject }) => `${level} ${subject}`)).toEqual([
    "warn cgroup driver",
  ]);
  const findings = await examine(createHealthyMachine(), { ...config, cgroupDriver: "systemd" });
  expect(findings.filter(({ level }) => level === "fail").map(({ text }) => text)).toEqual([
    "systemd, which does not run here; no container can be made",
  ]);
});

test("a disk that is nearly full, or out of inodes, and state that outlives a reboot are told", async () => {
  const full = createHealthyMachine({ fileSystemOf: async () => ({ ...roomy, freeBytes: 2 ** 30 }) });
  expect((await problemsOf(full)).map(({ text }) => text)).toEqual([
    '1.0 GiB of 1024.0 GiB are free for "/data/berth"; kubelet evicts below 15 %',
    'state "/run/berth" is not on a tmpfs; after a reboot it holds names of things that are gone',
  ]);
  const without = createHealthyMachine({
    fileSystemOf: async () => ({ ...roomy, type: 0x0102_1994, freeInodes: 10 }),
  });
  expect((await problemsOf(without)).map(({ text }) => text)).toEqual([
    '10 of 1000000 inodes are free for "/data/berth"; kubelet evicts below 5 %',
  ]);
});

test("a running daemon is well, a file in the place of the socket is not", async () => {
  const running = createHealthyMachine({
    whyTaken: async () => 'another server is listening on "/run/berth/berth.sock"',
  });
  expect(await problemsOf(running)).toEqual([]);
  const blocked = createHealthyMachine({ whyTaken: async () => '"/run/berth/berth.sock" exists and is not a socket' });
  expect((await problemsOf(blocked)).map(({ level, subject }) => `${level} ${subject}`)).toEqual(["fail socket"]);
});

test("what a daemon before left is told: mounts of its pods, and records that it could not read", async () => {
  const left = mountOf("overlay", "/run/berth/containers/abc/rootfs", []);
  const machine = createHealthyMachine({
    mounts: async () => [...hybridMounts, left],
    listNames: async (directory) =>
      directory === "/data/berth/containers"
        ? ["abc.json", "def.json.corrupt"]
        : await createHealthyMachine().listNames(directory),
  });
  const findings = (await examine(machine, config)).filter(({ subject }) => subject === "state");
  expect(findings.map(({ level, text }) => `${level} ${text}`)).toEqual([
    "ok no daemon runs, and 1 mounts of its pods are there: they go on, or wait for its next start",
    expect.stringContaining("/data/berth/containers/def.json.corrupt"),
  ]);
});

test("a runtime's version and what it lacks are told", async () => {
  const runtimeFacts = async () => ({
    name: "crun",
    version: "1.8.1",
    features: { userNamespaces: false, recursiveReadOnlyMounts: true, networkDevices: false },
  });
  const findings = await examine(createHealthyMachine({ runtimeFacts }), config);
  expect(findings.find(({ subject }) => subject === "runtime crun")?.text).toBe(
    "/usr/bin/crun, crun 1.8.1, without user namespaces (crun from 1.9 or runc from 1.2, Linux from 5.19)",
  );
});

test("a file on registries that cannot be used fails, by its own words", async () => {
  const registryProblems = async (): Promise<string[]> => ["/etc/containers/registries.conf: line 3: no value"];
  expect(await problemsOf(createHealthyMachine({ registryProblems }))).toEqual([
    expect.objectContaining({
      level: "fail",
      subject: "registries",
      text: "/etc/containers/registries.conf: line 3: no value",
    }),
  ]);
});

describe("signature policies", () => {
  const policyPath = "/etc/containers/policy.json";
  const signedBy = { type: "signedBy", keyType: "GPGKeys", keyPath: "/etc/keys/vendor.gpg" };
  const policy = JSON.stringify({ default: [{ type: "reject" }], transports: { docker: { "h.x": [signedBy] } } });

  test("one that can be checked, and none at all, are no problem", async () => {
    expect(await problemsOf(createHealthyMachine())).toEqual([]);
    expect(await problemsOf(createHealthyMachine({}, { [policyPath]: policy, [signedBy.keyPath]: "key" }))).toEqual([]);
  });

  test("gpg and key files that are missing are named", async () => {
    const findProgram = async (name: string) => (name === "gpg" ? undefined : `/usr/bin/${name}`);
    const machine = createHealthyMachine({ findProgram }, { [policyPath]: policy });
    expect((await problemsOf(machine)).map(({ level, text }) => `${level} ${text.slice(0, 48)}`)).toEqual([
      "warn gpg is not there, so no image that needs an Open",
      'warn the key file "/etc/keys/vendor.gpg" is not there',
    ]);
  });

  test("one that cannot be understood stops everything, a namespace's own one that namespace", async () => {
    const listNames = async (directory: string) =>
      directory === "/etc/berth/policies"
        ? ["strict.json"]
        : directory === "/usr/lib/cni"
          ? ["bridge", "host-local", "portmap"]
          : ["10-bridge.conflist"];
    const files = { [policyPath]: '{"default":[]}', "/etc/berth/policies/strict.json": "{" };
    expect(
      (await problemsOf(createHealthyMachine({ listNames }, files))).map(({ level, text }) => [level, text]),
    ).toEqual([
      ["fail", expect.stringContaining('"default": must not be empty')],
      ["warn", expect.stringContaining("strict.json")],
    ]);
  });

  test("one that is configured has to be there", async () => {
    const findings = await examine(createHealthyMachine(), { ...config, trust: { ...config.trust, policyPath: "/p" } });
    expect(findings).toContainEqual(expect.objectContaining({ level: "fail", text: expect.stringContaining('"/p"') }));
  });
});
