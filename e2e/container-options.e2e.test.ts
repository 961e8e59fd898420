import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import type { cri, Init } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";
import { runCommand, tryCommand } from "./harness/run-command.ts";

const berth = useDaemon();

type Security = Init<cri.LinuxContainerSecurityContext>;
const security = (securityContext: Security): Init<cri.ContainerConfig> => ({ linux: { securityContext } });

/** A folder of the test's own on the host, inside the workspace. */
async function hostDirectory(name: string): Promise<string> {
  const directory = path.join(berth.workspace.directory, "host", name);
  await mkdir(directory, { recursive: true });
  return directory;
}

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  /** Runs a shell script as a container of its own pod and returns what it printed on stdout. */
  async function output(script: string, overrides: Init<cri.ContainerConfig> = {}): Promise<string> {
    const isPrivileged = overrides.linux?.securityContext?.privileged === true;
    const config = isPrivileged ? { linux: { securityContext: { privileged: true } } } : {};
    const pod = await berth.runPod({ runtimeHandler, config });
    const { log, status } = await berth.runToEnd(pod, ["sh", "-c", script], overrides);
    await berth.removePod(pod.id);
    const text = log.map((line) => line.replace(/^std(?:out|err) /u, "")).join("\n");
    return status.exitCode === 0 ? text : `${text}\n[exit ${status.exitCode}]`;
  }

  describe("mounts", () => {
    test("a folder, a file and a symlinked folder of the host are seen", async () => {
      const directory = await hostDirectory(`seen-${runtimeHandler}`);
      await writeFile(path.join(directory, "file"), "content\n");
      await symlink(directory, `${directory}-link`);
      const mounts = [
        { hostPath: directory, containerPath: "/folder" },
        { hostPath: path.join(directory, "file"), containerPath: "/etc/one-file" },
        { hostPath: `${directory}-link`, containerPath: "/linked" },
      ];
      const text = await output("cat /folder/file /etc/one-file /linked/file; echo new > /folder/new", { mounts });
      expect(text).toBe("content\ncontent\ncontent");
      expect(await readFile(path.join(directory, "new"), "utf8")).toBe("new\n");
    });
    test("a missing host path is made as a folder", async () => {
      const hostPath = path.join(await hostDirectory(`missing-${runtimeHandler}`), "made/deep");
      const mounts = [{ hostPath, containerPath: "/made" }];
      expect(await output("stat -c %F /made; touch /made/x", { mounts })).toBe("directory");
      expect(await runCommand(["ls", hostPath])).toBe("x");
    });
    test("a read-only mount cannot be written", async () => {
      const hostPath = await hostDirectory(`ro-${runtimeHandler}`);
      const mounts = [{ hostPath, containerPath: "/ro", readonly: true }];
      expect(await output("touch /ro/x", { mounts })).toContain("Read-only file system");
    });
    test.each([false, true])("read-only is recursive if that is asked for: %s", async (recursiveReadOnly) => {
      const hostPath = await hostDirectory(`rro-${recursiveReadOnly}-${runtimeHandler}`);
      await mkdir(path.join(hostPath, "below"));
      await runCommand(["mount", "-t", "tmpfs", "below", path.join(hostPath, "below")]);
      try {
        const mounts = [{ hostPath, containerPath: "/m", readonly: true, recursiveReadOnly }];
        const text = await output("touch /m/x; touch /m/below/x && echo written below", { mounts });
        expect(text).toContain("/m/x: Read-only file system");
        expect(text.includes("written below")).toBe(!recursiveReadOnly);
        const pod = await berth.runPod({ runtimeHandler });
        const containerId = await berth.createContainer(pod, { mounts });
        const [told] = (await berth.containerStatus(containerId)).mounts;
        expect(told).toMatchObject({ readonly: true, recursiveReadOnly });
        await berth.removePod(pod.id);
      } finally {
        await tryCommand(["umount", path.join(hostPath, "below")]);
      }
    });
    test("mount options hold for the one mount that has them", async () => {
      const hostPath = await hostDirectory(`options-${runtimeHandler}`);
      await writeFile(path.join(hostPath, "script"), "#!/bin/sh\necho ran\n", { mode: 0o755 });
      const mounts = [
        { hostPath, containerPath: "/bound", mountOptions: ["noexec", "nosuid", "nodev"] },
        { hostPath, containerPath: "/free" },
      ];
      const text = await output("grep ' /bound ' /proc/self/mounts; /free/script; /bound/script", { mounts });
      const [line = "", ...rest] = text.split("\n");
      expect(line.split(" ")[3]?.split(",")).toEqual(expect.arrayContaining(["noexec", "nosuid", "nodev", "rw"]));
      expect(rest.join("\n")).toMatch(/^ran\n.*Permission denied/u);
    });
    test("mounts are made in an order that shows both of nested ones", async () => {
      const [outer, inner] = [
        await hostDirectory(`outer-${runtimeHandler}`),
        await hostDirectory(`inner-${runtimeHandler}`),
      ];
      await writeFile(path.join(outer, "outer"), "");
      await writeFile(path.join(inner, "inner"), "");
      const mounts = [
        { hostPath: inner, containerPath: "/tree/sub" },
        { hostPath: outer, containerPath: "/tree" },
      ];
      expect(await output("ls /tree /tree/sub", { mounts })).toMatch(/outer[\s\S]*inner/u);
    });
    test.each([
      ["PROPAGATION_PRIVATE", false],
      ["PROPAGATION_HOST_TO_CONTAINER", true],
    ] as const)("%s decides whether a later mount of the host is seen", async (propagation, isSeen) => {
      const hostPath = await hostDirectory(`propagation-${propagation}-${runtimeHandler}`);
      await runCommand(["mount", "--bind", hostPath, hostPath]);
      await runCommand(["mount", "--make-rshared", hostPath]);
      try {
        await mkdir(path.join(hostPath, "later"));
        const pod = await berth.runPod({ runtimeHandler });
        const mounts = [{ hostPath, containerPath: "/m", propagation }];
        const containerId = await berth.startContainer(pod, { mounts });
        await runCommand(["mount", "-t", "tmpfs", "later", path.join(hostPath, "later")]);
        const table = await berth.shell(containerId, "cat /proc/self/mountinfo");
        expect(table.includes(" /m/later ")).toBe(isSeen);
        await berth.removePod(pod.id);
      } finally {
        await tryCommand(["umount", "-R", hostPath]);
      }
    });
    test("PROPAGATION_BIDIRECTIONAL shows the host what a privileged container mounts", async () => {
      const hostPath = await hostDirectory(`bidirectional-${runtimeHandler}`);
      await runCommand(["mount", "--bind", hostPath, hostPath]);
      await runCommand(["mount", "--make-rshared", hostPath]);
      try {
        await mkdir(path.join(hostPath, "made"));
        const config = { linux: { securityContext: { privileged: true } } };
        const pod = await berth.runPod({ runtimeHandler, config });
        const mounts = [{ hostPath, containerPath: "/m", propagation: "PROPAGATION_BIDIRECTIONAL" as const }];
        const containerId = await berth.startContainer(pod, { mounts, ...security({ privileged: true }) });
        await berth.shell(containerId, "mount -t tmpfs made /m/made");
        expect(await readFile("/proc/self/mountinfo", "utf8")).toContain(`${hostPath}/made`);
        await berth.shell(containerId, "umount /m/made");
        await berth.removePod(pod.id);
      } finally {
        await tryCommand(["umount", "-R", hostPath]);
      }
    });
  });

  describe("users", () => {
    test("by number, with group and supplementary groups", async () => {
      const context = { runAsUser: { value: 1234n }, runAsGroup: { value: 4321n }, supplementalGroups: [7n, 9n] };
      expect(await output("id -u; id -g; id -G", security(context))).toBe("1234\n4321\n4321 7 9");
    });
    test("by name, with the groups that the image gives that user", async () => {
      expect(await output("id -u; id -g; id -G", security({ runAsUsername: "web" }))).toBe("1000\n1000\n1000 29 2000");
    });
    test("a strict policy leaves the image's groups out", async () => {
      const context = {
        runAsUser: { value: 1000n },
        supplementalGroups: [7n],
        supplementalGroupsPolicy: "Strict" as const,
      };
      expect(await output("id -G", security(context))).toBe("1000 7");
    });
    test.each([
      ["Merge", [7n, 29n, 1000n, 2000n]],
      ["Strict", [7n, 1000n]],
    ] as const)("the status tells the groups that the policy %s leaves", async (supplementalGroupsPolicy, groups) => {
      const pod = await berth.runPod({ runtimeHandler });
      const context = { runAsUser: { value: 1000n }, supplementalGroups: [7n], supplementalGroupsPolicy };
      const containerId = await berth.startContainer(pod, security(context));
      const { user } = await berth.containerStatus(containerId);
      expect(user?.linux?.supplementalGroups.toSorted((a, b) => Number(a - b))).toEqual(groups);
      const ids = (await berth.shell(containerId, "id -G")).split(" ").map(BigInt);
      expect(ids.toSorted((a, b) => Number(a - b))).toEqual(groups);
    });
    test("the status tells who the first process is", async () => {
      const pod = await berth.runPod({ runtimeHandler });
      const containerId = await berth.startContainer(pod, security({ runAsUser: { value: 1000n } }));
      const { user } = await berth.containerStatus(containerId);
      expect(user?.linux).toMatchObject({ uid: 1000n, gid: 1000n });
      expect(user?.linux?.supplementalGroups.toSorted()).toEqual([1000n, 2000n, 29n]);
    });
    test("HOME is the user's", async () => {
      expect(await output("echo $HOME", security({ runAsUsername: "web" }))).toBe("/home/web");
    });
  });

  describe("privileges", () => {
    const effective = "grep CapEff /proc/self/status | cut -f 2";
    const bit = (mask: string, capability: number): boolean =>
      ((BigInt(`0x${mask}`) >> BigInt(capability)) & 1n) === 1n;
    const netAdmin = 12;
    const netRaw = 13;
    const chown = 0;

    test("capabilities are added and dropped", async () => {
      const change = { capabilities: { addCapabilities: ["NET_ADMIN"], dropCapabilities: ["CHOWN"] } };
      const [plain, changed] = [await output(effective), await output(effective, security(change))];
      expect([bit(plain, netAdmin), bit(plain, chown)]).toEqual([false, true]);
      expect([bit(changed, netAdmin), bit(changed, chown)]).toEqual([true, false]);
    });
    test("dropping ALL leaves none but what is added", async () => {
      const none = await output(effective, security({ capabilities: { dropCapabilities: ["ALL"] } }));
      expect(BigInt(`0x${none}`)).toBe(0n);
      const change = { capabilities: { dropCapabilities: ["ALL"], addCapabilities: ["CAP_NET_RAW"] } };
      expect(BigInt(`0x${await output(effective, security(change))}`)).toBe(1n << BigInt(netRaw));
    });
    test("a user who is not root has ambient capabilities when asked for, in all five sets", async () => {
      const context = { runAsUser: { value: 1000n }, capabilities: { addAmbientCapabilities: ["NET_RAW"] } };
      const text = await output("grep ^Cap /proc/self/status", security(context));
      const sets = Object.fromEntries(
        [...text.matchAll(/^Cap(\w+):\s+(\w+)$/gmu)].map(([, name, mask]) => [name, mask]),
      );
      for (const name of ["Inh", "Prm", "Eff", "Bnd", "Amb"]) expect(bit(sets[name] ?? "0", netRaw), name).toBe(true);
      for (const name of ["Prm", "Eff", "Amb"]) expect(bit(sets[name] ?? "0", chown), name).toBe(false);
    });
    test("no_new_privs is set when asked for", async () => {
      const script = "grep NoNewPrivs /proc/self/status | cut -f 2";
      expect(await output(script)).toBe("0");
      expect(await output(script, security({ noNewPrivs: true }))).toBe("1");
    });
    test("a privileged container has the daemon's capabilities, writable kernel files and the host's devices", async () => {
      const own = /CapEff:\s+([0-9a-f]+)/u.exec(await readFile(`/proc/${berth.daemon.pid}/status`, "utf8"))?.[1] ?? "";
      const script = `${effective}; grep -c ' /sys .*ro' /proc/self/mounts; [ -c /dev/kmsg ] && echo kmsg; grep Seccomp: /proc/self/status | cut -f 2`;
      const text = await output(script, security({ privileged: true }));
      const [mask, readOnlySys, ...rest] = text.replace("\n[exit 1]", "").split("\n");
      expect(BigInt(`0x${mask}`)).toBe(BigInt(`0x${own}`));
      expect(readOnlySys).toBe("0");
      expect(rest).toEqual(["kmsg", "0"]);
    });
    test.each([
      ["RuntimeDefault", "2"],
      ["Unconfined", "0"],
    ] as const)("seccomp %s gives mode %s", async (profileType, mode) => {
      const script = "grep Seccomp: /proc/self/status | cut -f 2";
      expect(await output(script, security({ seccomp: { profileType } }))).toBe(mode);
    });
    test("the default seccomp profile refuses what the container has no capability for, and lets daily work pass", async () => {
      const seccomp = { profileType: "RuntimeDefault" as const };
      const refused = await output("unshare -U true && echo made", security({ seccomp }));
      expect(refused).not.toContain("made");
      const script =
        "dd if=/dev/zero of=/tmp/x bs=1k count=4 2>/dev/null; sync; ps | wc -l; nproc; sleep 0.01; date +%Y; echo ok";
      expect(await output(script, security({ seccomp }))).toMatch(/\nok$/u);
    });
    test("a Localhost seccomp profile is applied or refused by name", async () => {
      const file = path.join(await hostDirectory(`seccomp-${runtimeHandler}`), "profile.json");
      const profile = {
        defaultAction: "SCMP_ACT_ALLOW",
        syscalls: [{ names: ["sethostname"], action: "SCMP_ACT_ERRNO" }],
      };
      await writeFile(file, JSON.stringify(profile));
      const context = {
        seccomp: { profileType: "Localhost" as const, localhostRef: file },
        capabilities: { addCapabilities: ["SYS_ADMIN"] },
      };
      const text = await output("hostname changed; hostname", security(context)).catch((thrown: unknown) =>
        String(thrown),
      );
      expect(text).toMatch(/not permitted|Localhost/u);
      expect(text).not.toMatch(/^changed$/mu);
    });
  });

  describe("what is hidden", () => {
    test("masked and read-only paths replace the usual ones", async () => {
      const context = { maskedPaths: ["/bin/ls", "/www"], readonlyPaths: ["/tmp"] };
      const text = await output("ls; find /www; touch /tmp/x", security(context));
      expect(text).toContain("ls: Permission denied");
      expect(text).toContain("/tmp/x: Read-only file system");
      expect(text).not.toContain("index.html");
    });
    test("a read-only root cannot be written but for its mounts", async () => {
      const text = await output("touch /dev/shm/x && echo shm; touch /x", security({ readonlyRootfs: true }));
      expect(text).toMatch(/^shm\n.*Read-only file system/u);
    });
  });

  test("a device of the host is there with the permissions that were given", async () => {
    // The loop driver's control device: not one that every container may use, and opening it does nothing.
    const hostPath = path.join(await hostDirectory(`device-${runtimeHandler}`), "loop-control");
    await runCommand(["mknod", hostPath, "c", "10", "237"]);
    const tryBoth = "(: < /dev/given) && echo read; (: > /dev/given) && echo written; true";
    const given = (permissions: string): Promise<string> =>
      output(tryBoth, { devices: [{ hostPath, containerPath: "/dev/given", permissions }] });
    expect(await given("r")).toMatch(/^read\n.*Operation not permitted/u);
    expect(await given("rw")).toBe("read\nwritten");
    expect(await output("ls /dev/given")).toContain("No such file");
  });

  test("a terminal is given when asked for, and its output is logged", async () => {
    const script = "[ -t 0 ] && [ -t 1 ] && echo terminal; echo $TERM";
    expect((await output(script, { tty: true, stdin: true })).replaceAll("\r", "")).toBe("terminal\nxterm");
  });

  test("an open stdin waits, a closed one is at its end", async () => {
    expect(await output("cat; echo end")).toBe("end");
    const pod = await berth.runPod({ runtimeHandler });
    const command = ["sh", "-c", "echo begin; cat; echo end"];
    const containerId = await berth.startContainer(pod, { stdin: true, command });
    expect(await berth.waitForLog(containerId, "begin")).toEqual(["stdout begin"]);
    expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_RUNNING");
  });

  test("resources are set, and can be changed while it runs", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const resources = { memoryLimitInBytes: 64n << 20n, cpuShares: 300n, cpuQuota: 50_000n, cpuPeriod: 100_000n };
    const containerId = await berth.startContainer(pod, { linux: { resources } });
    const { status, info } = await berth.call("ContainerStatus", { containerId, verbose: true });
    expect(status?.resources?.linux).toMatchObject(resources);
    const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
    expect(await readCgroup(pid, "memory", "memory.limit_in_bytes")).toBe(String(64n << 20n));
    expect(await readCgroup(pid, "cpu", "cpu.cfs_quota_us")).toBe("50000");
    const linux = { memoryLimitInBytes: 96n << 20n, cpuQuota: 70_000n };
    await berth.call("UpdateContainerResources", { containerId, linux });
    expect(await readCgroup(pid, "memory", "memory.limit_in_bytes")).toBe(String(96n << 20n));
    expect(await readCgroup(pid, "cpu", "cpu.cfs_quota_us")).toBe("70000");
    expect(await readCgroup(pid, "cpu", "cpu.shares")).toBe("300");
    expect((await berth.containerStatus(containerId)).resources?.linux).toMatchObject({ ...resources, ...linux });
  });

  test("limits of swap and of huge pages are set, and can be changed while it runs", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const resources = {
      memoryLimitInBytes: 64n << 20n,
      memorySwapLimitInBytes: 96n << 20n, // memory and swap together
      hugepageLimits: [{ pageSize: "2MB", limit: 8n << 20n }],
    };
    const containerId = await berth.startContainer(pod, { linux: { resources } });
    const { status, info } = await berth.call("ContainerStatus", { containerId, verbose: true });
    expect(status?.resources?.linux).toMatchObject(resources);
    const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
    expect(await readCgroup(pid, "memory", "memory.memsw.limit_in_bytes")).toBe(String(96n << 20n));
    expect(await readCgroup(pid, "hugetlb", "hugetlb.2MB.limit_in_bytes")).toBe(String(8n << 20n));
    const linux = { memoryLimitInBytes: 80n << 20n, memorySwapLimitInBytes: 160n << 20n };
    await berth.call("UpdateContainerResources", { containerId, linux });
    expect(await readCgroup(pid, "memory", "memory.memsw.limit_in_bytes")).toBe(String(160n << 20n));
    expect((await berth.containerStatus(containerId)).resources?.linux).toMatchObject({ ...resources, ...linux });
  });

  test("without a swap limit of its own a memory limit holds swap back, and -1 lets it go", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const limitOf = async (memorySwapLimitInBytes: bigint): Promise<string> => {
      const resources = { memoryLimitInBytes: 64n << 20n, memorySwapLimitInBytes };
      const containerId = await berth.startContainer(pod, { linux: { resources } });
      const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
      const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
      return await readCgroup(pid, "memory", "memory.memsw.limit_in_bytes");
    };
    expect(await limitOf(0n)).toBe(String(64n << 20n));
    expect(BigInt(await limitOf(-1n))).toBeGreaterThan(1n << 60n);
  });

  test("a container beyond its memory limit ends as OOMKilled", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const resources = { memoryLimitInBytes: 15n << 20n, memorySwapLimitInBytes: 15n << 20n };
    const { status } = await berth.runToEnd(pod, ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"], {
      linux: { resources },
    });
    expect(status).toMatchObject({ exitCode: 137, reason: "OOMKilled" });
  });

  test("statistics are told of one container and of all that a filter takes", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const busy = ["sh", "-c", "dd if=/dev/zero of=/file bs=1M count=4 2>/dev/null; while :; do sleep 0.01; done"];
    const containerId = await berth.startContainer(pod, { command: busy, labels: { stats: runtimeHandler } });
    await expect
      .poll(async () => (await berth.call("ContainerStats", { containerId })).stats?.writableLayer?.usedBytes?.value, {
        timeout: 30_000,
        interval: 500,
      })
      .toBeGreaterThan(4_000_000n);
    const { stats } = await berth.call("ContainerStats", { containerId });
    expect(stats?.attributes).toMatchObject({ id: containerId, labels: { stats: runtimeHandler } });
    expect(stats?.cpu?.usageCoreNanoSeconds?.value).toBeGreaterThan(0n);
    expect(stats?.memory?.workingSetBytes?.value).toBeGreaterThan(0n);
    const list = async (filter: object): Promise<string[]> =>
      (await berth.call("ListContainerStats", { filter })).stats.map((each) => each.attributes?.id ?? "");
    expect(await list({ labelSelector: { stats: runtimeHandler } })).toEqual([containerId]);
    expect(await list({ id: containerId })).toEqual([containerId]);
    expect(await list({ podSandboxId: pod.id })).toEqual([containerId]);
    expect(await list({ labelSelector: { stats: "none" } })).toEqual([]);
  });
});

/** A cgroup v1 file of the group that a process is in. */
async function readCgroup(pid: number, controller: string, name: string): Promise<string> {
  const groups = await readFile(`/proc/${pid}/cgroup`, "utf8");
  const line = groups.split("\n").find((each) => each.split(":")[1]?.split(",").includes(controller));
  const file = path.join("/sys/fs/cgroup", controller, line?.split(":")[2] ?? "", name);
  return (await readFile(file, "utf8")).trim();
}
