import { mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { constants, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { helperPath } from "./binding.ts";
import { readFilesBounded } from "./files.ts";
import { readMountTable } from "./mount-table.ts";
import { bindMount, mountTmpfs, unmount } from "./mount.ts";
import { connectInNamespace, pinNamespaces, pinUserNamespace, sysctlPath, unpinNamespace } from "./namespaces.ts";
import { readInterfaceCounters } from "./network-devices.ts";
import { type Child, spawn } from "./process.ts";
import { run } from "./run.ts";

let directory: string;
const inside = (name: string): string => join(directory, name);
const signal = new AbortController().signal;
const kinds = ["net", "ipc", "uts"] as const;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-pins-"));
});
afterEach(async () => {
  for (const kind of kinds) await unpinNamespace(inside(kind));
  const left = (await readMountTable()).filter(({ mountPoint }) => mountPoint.startsWith(directory));
  expect(left).toEqual([]);
  await rm(directory, { recursive: true });
});

function enterArgv(script: string): [string, ...string[]] {
  const pins = kinds.map((kind) => `--${kind}=${inside(kind)}`);
  return ["/usr/bin/nsenter", ...pins, "/bin/sh", "-c", script];
}

async function enter(script: string): Promise<string> {
  const path = "/usr/sbin:/usr/bin:/sbin:/bin";
  const result = await run({ argv: enterArgv(script), env: { PATH: path }, signal });
  expect(result.stderr.toString()).toBe("");
  return result.stdout.toString();
}

describe("pinNamespaces", () => {
  test("leaves no thread that later work would find in another namespace", async () => {
    const files = ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_local_port_range"];
    const look = async (): Promise<string> => String(await readFilesBounded(files, 4096));
    const own = await look();
    const sysctls = { "net.ipv4.ip_local_port_range": "2000\t3000" };
    await pinNamespaces({ directory, kinds, hostname: "elsewhere", sysctls });
    await expect(connectInNamespace(inside("net"), { host: "127.0.0.1", port: 1 }, { signal })).rejects.toThrow();
    await readInterfaceCounters([inside("net")]);
    for (let time = 0; time < 20; time++) expect(await look()).toBe(own);
  });

  test("sets hostname, sysctls and loopback inside, and nothing outside", async () => {
    const forward = await readFile("/proc/sys/net/ipv4/ip_forward", "utf8");
    const own = hostname();
    await pinNamespaces({
      directory,
      kinds,
      hostname: "pod-1",
      sysctls: {
        "net.ipv4.ip_forward": forward.startsWith("1") ? "0" : "1",
        "net/ipv4/conf/all/rp_filter": "2",
        "net.ipv4.ip_local_port_range": "2000\t3000",
        "kernel.shmmax": "123456",
      },
    });
    const report = await enter(
      "hostname; cat /sys/class/net/lo/operstate /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter; " +
        "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shmmax; ip -o -4 addr show lo | grep -c 127.0.0.1",
    );
    const flipped = forward.startsWith("1") ? "0" : "1";
    expect(report.split("\n")).toEqual(["pod-1", expect.any(String), flipped, "2", "2000\t3000", "123456", "1", ""]);
    await expect(readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).resolves.toBe(forward);
    expect(hostname()).toBe(own);
    expect((await readFile("/proc/sys/kernel/hostname", "utf8")).trim()).toBe(own);
  });

  test("makes only the kinds asked for", async () => {
    await pinNamespaces({ directory, kinds: ["ipc"] });
    await expect(readdir(directory)).resolves.toEqual(["ipc"]);
    expect((await stat(inside("ipc"))).ino).not.toBe((await stat("/proc/self/ns/ipc")).ino);
    await pinNamespaces({ directory, kinds: [] });
    await expect(readdir(directory)).resolves.toEqual(["ipc"]);
  });

  test("leaves nothing behind when it fails half way", async () => {
    await mkdir(inside("uts"));
    await expect(pinNamespaces({ directory, kinds })).rejects.toMatchObject({ code: "EEXIST" });
    await expect(readdir(directory)).resolves.toEqual(["uts"]);
    await rm(inside("uts"), { recursive: true });
    await expect(pinNamespaces({ directory, kinds, sysctls: { "net.ipv4.no_such_thing": "1" } })).rejects.toMatchObject(
      { syscall: "sysctl", code: "ENOENT", path: "/proc/sys/net/ipv4/no_such_thing" },
    );
    await expect(readdir(directory)).resolves.toEqual([]);
  });

  test.each([
    "",
    ".",
    "a..b",
    "../kernel/core_pattern",
    "net/../../etc",
    "/etc/passwd",
    "net.\u0000x",
    "net ipv4",
    "a//b",
  ])("refuses the sysctl name %j", async (key) => {
    await expect(pinNamespaces({ directory, kinds: ["net"], sysctls: { [key]: "1" } })).rejects.toMatchObject({
      code: "EINVAL",
    });
    expect(() => sysctlPath(key)).toThrow("EINVAL");
  });

  test.each(["1\n2", "1\u00002", "\u001b[0m", "\u007f"])("refuses the sysctl value %j", async (value) => {
    const sysctls = { "net.ipv4.ip_forward": value };
    await expect(pinNamespaces({ directory, kinds: ["net"], sysctls })).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("many at once do not see each other", async () => {
    const names = Array.from({ length: 20 }, (_, index) => `pod-${index}`);
    await Promise.all(names.map((name) => mkdir(inside(name))));
    await Promise.all(
      names.map((name) => pinNamespaces({ directory: inside(name), kinds: ["uts", "net"], hostname: name })),
    );
    const inodes = await Promise.all(names.map(async (name) => (await stat(inside(`${name}/net`))).ino));
    expect(new Set(inodes).size).toBe(names.length);
    await Promise.all(names.flatMap((name) => ["uts", "net"].map((kind) => unpinNamespace(inside(`${name}/${kind}`)))));
  });

  test("letting go twice is fine", async () => {
    await pinNamespaces({ directory, kinds: ["net"] });
    await unpinNamespace(inside("net"));
    await unpinNamespace(inside("net"));
    await expect(readdir(directory)).resolves.toEqual([]);
  });
});

test("a name with dots is reached by slashes, as sysctl(8) does", () => {
  expect(sysctlPath("net.ipv4.conf.eth0/100.rp_filter")).toBe("/proc/sys/net/ipv4/conf/eth0.100/rp_filter");
  expect(sysctlPath("net/ipv4/conf/eth0.100/rp_filter")).toBe("/proc/sys/net/ipv4/conf/eth0.100/rp_filter");
});

/** A one-connection echo server on a port of 127.0.0.1 inside the pinned namespace. */
async function startEcho(): Promise<{ readonly child: Child; readonly port: number }> {
  const source = `require("node:net").createServer((s) => s.pipe(s)).listen(0, "127.0.0.1", function () { console.log(this.address().port) })`;
  const child = await spawn({
    argv: ["/usr/bin/nsenter", `--net=${inside("net")}`, process.execPath, "-e", source],
    env: {},
    stdio: ["null", "pipe-write", "null"],
  });
  const [line] = (await child.stdio[1]!.take(1).toArray()) as Buffer[];
  return { child, port: Number(line?.toString()) };
}

describe("connectInNamespace", () => {
  test("reaches a server that only listens inside", async () => {
    await pinNamespaces({ directory, kinds: ["net"] });
    const { child, port } = await startEcho();
    const socket = await connectInNamespace(inside("net"), { host: "localhost", port }, { signal });
    socket.end("echo this");
    const received = Buffer.concat((await socket.toArray()) as Buffer[]);
    expect(received.toString()).toBe("echo this");
    child.kill(constants.signals.SIGKILL);
    await child.exited;
  });

  test("does not reach this network's loopback", async () => {
    await pinNamespaces({ directory, kinds: ["net"] });
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    for (const host of ["127.0.0.1", "localhost"])
      await expect(connectInNamespace(inside("net"), { host, port }, { signal })).rejects.toMatchObject({
        code: "ECONNREFUSED",
      });
    await new Promise((resolve) => server.close(resolve));
  });

  test("refuses bad addresses and paths, and gives up with its signal", async () => {
    await pinNamespaces({ directory, kinds: ["net"] });
    const port = 1;
    const connect = (path: string, host: string, abort = signal) =>
      connectInNamespace(path, { host, port }, { signal: abort });
    await expect(connect(inside("net"), "not an address")).rejects.toMatchObject({ code: "EINVAL" });
    await expect(connect(inside("absent"), "127.0.0.1")).rejects.toMatchObject({ code: "ENOENT" });
    await expect(connect("/etc/passwd", "127.0.0.1")).rejects.toMatchObject({ syscall: "setns", code: "EINVAL" });
    const ip = ["/usr/bin/nsenter", `--net=${inside("net")}`, "/bin/sh", "-c"] as const;
    const setUp = "ip link add d0 up type veth peer name d1 && ip link set d1 up && ip addr add 10.9.9.1/24 dev d0";
    const made = await run({ argv: [...ip, setUp], env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" }, signal });
    expect(made.status).toEqual({ kind: "exited", code: 0 });
    await expect(connect(inside("net"), "10.9.9.9", AbortSignal.timeout(100))).rejects.toThrow(/timeout/i);
  });
});

describe("user namespaces", () => {
  const mappings = [
    { containerId: 0, hostId: 100_000, size: 65_536 },
    { containerId: 70_000, hostId: 200_000, size: 1 },
  ];
  const pinUser = () => pinUserNamespace({ path: inside("user"), uidMappings: mappings, gidMappings: mappings });
  afterEach(async () => {
    await unpinNamespace(inside("user"));
  });

  test("have the mappings asked for and own the namespaces pinned in them", async () => {
    await pinUser();
    const sysctls = { "net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "654321" };
    await pinNamespaces({ directory, kinds, hostname: "pod-u", sysctls, userNamespace: inside("user") });
    const report = await run({
      argv: [
        "/usr/bin/nsenter",
        `--user=${inside("user")}`,
        ...kinds.map((kind) => `--${kind}=${inside(kind)}`),
        "/bin/sh",
        "-c",
        "id -u; hostname; cat /proc/self/uid_map | tr -s ' '; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax; " +
          "ip -o -4 addr show lo | grep -c 127.0.0.1; hostname changed && hostname; ip link set lo down && echo owned",
      ],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
      signal,
    });
    expect(report.stderr.toString()).toBe("");
    const maps = [" 0 100000 65536", " 70000 200000 1"];
    const expected = ["0", "pod-u", ...maps, "0", "654321", "1", "changed", "owned", ""];
    expect(report.stdout.toString().split("\n")).toEqual(expected);
  });

  test("leave nothing behind when something is refused", async () => {
    const wrong = [{ containerId: 0, hostId: 0, size: 0 }];
    const path = inside("user");
    await expect(pinUserNamespace({ path, uidMappings: wrong, gidMappings: wrong })).rejects.toMatchObject({
      syscall: "uid_map",
      code: "EINVAL",
    });
    const negative = [{ containerId: -1, hostId: 0, size: 1 }];
    await expect(pinUserNamespace({ path, uidMappings: negative, gidMappings: [] })).rejects.toThrow("EINVAL");
    await pinUser();
    await expect(pinUser()).rejects.toMatchObject({ code: "EEXIST" });
    const pin = (sysctls: Record<string, string>) => pinNamespaces({ directory, kinds, sysctls, userNamespace: path });
    await expect(pin({ "net.ipv4.none": "1" })).rejects.toMatchObject({
      syscall: "sysctl",
      code: "ENOENT",
      path: "/proc/sys/net/ipv4/none",
    });
    // not the namespace's own: what belongs to the host stays closed
    await expect(pin({ "vm.swappiness": "1" })).rejects.toMatchObject({ code: "EACCES" });
    await mkdir(inside("uts"));
    await expect(pin({})).rejects.toMatchObject({ code: "EEXIST" });
    await rm(inside("uts"), { recursive: true });
    await expect(pinNamespaces({ directory, kinds, userNamespace: "/etc/passwd" })).rejects.toMatchObject({
      syscall: "setns",
    });
    await expect(readdir(directory)).resolves.toEqual(["user"]);
  });

  test("map the owners of an idmapped bind mount", async () => {
    await pinUser();
    await Promise.all(["source", "target"].map((name) => mkdir(inside(name))));
    await mountTmpfs({ target: inside("source"), sizeBytes: 65_536, mode: 0o755 });
    await bindMount({ source: inside("source"), target: inside("target"), userNamespace: inside("user") });
    expect((await stat(inside("source"))).uid).toBe(0);
    expect((await stat(inside("target"))).uid).toBe(100_000);
    await unmount(inside("target"), { signal });
    await unmount(inside("source"), { signal });
  });
});

describe("berth-helper pause", () => {
  /** Runs it as PID 1 of a PID namespace of its own. */
  function startPause(): Promise<Child> {
    return spawn({
      argv: ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", helperPath, "pause"],
      env: {},
      stdio: ["null", "null", "null"],
    });
  }
  async function findPause(parent: Child): Promise<number> {
    const path = `/proc/${parent.pid}/task/${parent.pid}/children`;
    for (;;) {
      const pid = Number(await readFile(path, "utf8"));
      if (pid > 0 && (await readFile(`/proc/${pid}/comm`, "utf8")) === "berth-helper\n") return pid;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  test.each(["SIGTERM", "SIGINT"] as const)("ends with 0 on %s though it is PID 1", async (name) => {
    const parent = await startPause();
    const pause = await findPause(parent);
    process.kill(pause, name);
    await expect(parent.exited).resolves.toEqual({ kind: "exited", code: 0 });
  });

  test("reaps what is orphaned in its namespace, and ignores other signals", async () => {
    const parent = await startPause();
    const pause = await findPause(parent);
    process.kill(pause, "SIGUSR1");
    process.kill(pause, "SIGHUP");
    const enterPids = ["/usr/bin/nsenter", `--pid=/proc/${pause}/ns/pid`, `--mount=/proc/${pause}/ns/mnt`] as const;
    const script = "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done";
    await run({ argv: [...enterPids, "/bin/sh", "-c", script], env: { PATH: "/bin" }, signal });
    const children = async () => (await readFile(`/proc/${pause}/task/${pause}/children`, "utf8")).trim();
    const deadline = performance.now() + 5000;
    while ((await children()) !== "" && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(children()).resolves.toBe("");
    process.kill(pause, "SIGTERM");
    await expect(parent.exited).resolves.toEqual({ kind: "exited", code: 0 });
  });
});
