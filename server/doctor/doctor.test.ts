import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
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

function createHealthyMachine(over: Partial<Machine> = {}, files: Readonly<Record<string, string>> = {}): Machine {
  const texts: Readonly<Record<string, string>> = {
    "/proc/filesystems": "nodev\tproc\nnodev\toverlay\n\text4\n",
    "/proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow",
    "/sys/fs/cgroup/unified/cgroup.controllers": "\n",
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
    versionOf: async (program) => `${program} version 1`,
    readText: async (path) => texts[path],
    listNames: async (directory) => names[directory] ?? [],
    fileSystemOf: async () => 0xef53,
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
  const nested = createHealthyMachine({ fileSystemOf: async () => 0x794c_7630 });
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
