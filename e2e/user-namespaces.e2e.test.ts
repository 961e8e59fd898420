import { lstat, mkdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { podConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";
import { newerRuntimes, unpackNewerRuntimes } from "./harness/newer-runtimes.ts";
import { runCommand } from "./harness/run-command.ts";

beforeAll(unpackNewerRuntimes, 300_000);
const systemRuntimes = { "system-crun": { path: "crun" }, "system-runc": { path: "runc" } };
const berth = useDaemon({
  pull: ["busybox", "configured", "artifact"],
  runtimes: { ...newerRuntimes, ...systemRuntimes },
});

/** The host's id of the pod's root; no user of the machine has it or one near. */
const root = 300_000;
const range = { containerId: 0, hostId: root, length: 65_536 };
const mapped = { uidMappings: [range], gidMappings: [range] };

/** A pod with a user namespace. */
function podOf(
  modes: Init<cri.NamespaceOption> = {},
  context: Init<cri.LinuxSandboxSecurityContext> = {},
): Init<cri.PodSandboxConfig> {
  const usernsOptions = { mode: "POD" as const, uids: [range], gids: [range] };
  return {
    linux: { securityContext: { namespaceOptions: { pid: "CONTAINER", usernsOptions, ...modes }, ...context } },
  };
}

/** Owner and group on the host. */
async function owners(file: string): Promise<readonly number[]> {
  const { uid, gid } = await lstat(file);
  return [uid, gid];
}

async function hostPidOf(containerId: string): Promise<number> {
  const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
  return (JSON.parse(info["info"] ?? "{}") as { pid: number }).pid;
}

const security = (context: Init<cri.LinuxContainerSecurityContext>): Init<cri.ContainerConfig> => ({
  linux: { securityContext: context },
});

const own = { namespaceOptions: { pid: "CONTAINER" as const } };

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  interface Started {
    readonly containerId: string;
    readonly podSandboxId: string;
  }
  const start = async (overrides: Init<cri.ContainerConfig> = {}, config = podOf()): Promise<Started> => {
    const pod = await berth.runPod({ runtimeHandler, config });
    const namespaceOptions = config.linux?.securityContext?.namespaceOptions ?? null;
    const linux = { ...overrides.linux, securityContext: { namespaceOptions, ...overrides.linux?.securityContext } };
    return { containerId: await berth.startContainer(pod, { ...overrides, linux }), podSandboxId: pod.id };
  };
  const run = async (script: string, overrides: Init<cri.ContainerConfig> = {}, config = podOf()): Promise<string> =>
    berth.shell((await start(overrides, config)).containerId, script);
  const hostDirectory = async (name: string): Promise<string> => {
    const directory = path.join(berth.workspace.temporary, `${name}-${runtimeHandler}`);
    await mkdir(directory, { recursive: true });
    onTestFinished(() => rm(directory, { recursive: true }));
    return directory;
  };

  test.each(["CONTAINER", "POD"] as const)("root of a pod is nobody on the host, PID mode %s", async (pid) => {
    const { containerId } = await start({}, podOf({ pid }));
    const script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -g";
    const answer = (await berth.shell(containerId, script)).replaceAll(/ +/gu, " ");
    expect(answer).toBe(" 0 300000 65536\n 0 300000 65536\n0\n0");
    const pidOnHost = await hostPidOf(containerId);
    expect(await readFile(`/proc/${pidOnHost}/status`, "utf8")).toMatch(/^Uid:\t300000\t[\s\S]*^Gid:\t300000\t/mu);
    expect(await readlink(`/proc/${pidOnHost}/ns/user`)).not.toBe(await readlink("/proc/self/ns/user"));
  });

  test("two pods, and the containers of one, share what they are told to", async () => {
    const pod = await berth.runPod({ runtimeHandler, config: podOf({ pid: "POD" }) });
    const options = security({ namespaceOptions: { pid: "POD" } });
    const [one, two] = [await berth.startContainer(pod, options), await berth.startContainer(pod, options)];
    const other = { ...range, hostId: 400_000 };
    const usernsOptions = { mode: "POD" as const, uids: [other], gids: [other] };
    const stranger = await start({}, podOf({ usernsOptions }));
    const namespaceOf = async (id: string, kind: string): Promise<string> =>
      readlink(`/proc/${await hostPidOf(id)}/ns/${kind}`);
    for (const kind of ["user", "pid", "net", "ipc", "uts"]) {
      expect(await namespaceOf(one, kind), kind).toBe(await namespaceOf(two, kind));
      expect(await namespaceOf(one, kind), kind).not.toBe(await namespaceOf(stranger.containerId, kind));
    }
    expect(await owners(`/proc/${await hostPidOf(stranger.containerId)}/root/etc`)).toEqual([400_000, 400_000]);
  });

  test("the image's files are root's, and so is what is written", async () => {
    const { containerId } = await start({ workingDir: "/made/for/me" });
    const script = "stat -c '%n %u %g' / /etc/passwd /bin/busybox /tmp /home/web /made/for/me; touch /new; pwd";
    expect((await berth.shell(containerId, script)).split("\n")).toEqual([
      "/ 0 0",
      "/etc/passwd 0 0",
      "/bin/busybox 0 0",
      "/tmp 0 0",
      "/home/web 1000 1000",
      "/made/for/me 0 0",
      "/made/for/me",
    ]);
    const inside = `/proc/${await hostPidOf(containerId)}/root`;
    expect(await owners(`${inside}/new`)).toEqual([root, root]);
    expect(await owners(`${inside}/home/web`)).toEqual([root + 1000, root + 1000]);
    await berth.shell(containerId, "chown web:web /new && echo x >> /home/web/.profile && chown 7:8 /etc/passwd");
    expect(await owners(`${inside}/new`)).toEqual([root + 1000, root + 1000]);
    expect(await owners(`${inside}/etc/passwd`)).toEqual([root + 7, root + 8]);
  });

  test("the image's own user, working directory and entrypoint hold", async () => {
    const image = { image: berth.image("configured") };
    const { containerId } = await start({ image });
    await berth.waitForLog(containerId, "entry one two");
    const script = "id -u; id -G; stat -c '%n %u %g' $PWD ..; touch ~/mine; stat -c %u ~/mine";
    expect((await berth.shell(containerId, script)).split("\n")).toEqual([
      "1000",
      "1000 29 2000",
      "/home/web/work 0 0",
      ".. 1000 1000",
      "1000",
    ]);
  });

  test("a volume with mapped owners belongs to root on both sides", async () => {
    const [hostPath, readOnly] = [await hostDirectory("volume"), await hostDirectory("read-only")];
    for (const directory of [hostPath, readOnly]) await writeFile(path.join(directory, "old"), "");
    await runCommand(["chown", "1000:33", path.join(hostPath, "old")]);
    const { containerId } = await start({
      mounts: [
        { hostPath, containerPath: "/volume", ...mapped },
        { hostPath: readOnly, containerPath: "/ro", readonly: true, recursiveReadOnly: true, ...mapped },
      ],
    });
    expect(await berth.shell(containerId, "stat -c '%u %g' /volume /volume/old /ro/old")).toBe("0 0\n1000 33\n0 0");
    await berth.shell(containerId, "touch /volume/new /volume/given; chown 5:6 /volume/given");
    expect(await owners(path.join(hostPath, "new"))).toEqual([0, 0]);
    expect(await owners(path.join(hostPath, "given"))).toEqual([5, 6]);
    await expect(berth.shell(containerId, "touch /ro/new")).rejects.toThrow("Read-only file system");
  });

  test("an image volume belongs to root, and cannot be written", async () => {
    const image = { image: berth.image("artifact") };
    const mounts = [
      { containerPath: "/files", image },
      { containerPath: "/model", image, imageSubPath: "model" },
    ];
    const script = "stat -c %u:%g /files/readme.txt /model/weights.bin; cat /model/weights.bin; touch /files/x 2>&1";
    expect(await run(`${script}; true`, { mounts })).toMatch(/^0:0\n0:0\n1 2 3\n.*Read-only file system/u);
  });

  test("a volume without mappings stays the host's", async () => {
    const hostPath = await hostDirectory("plain");
    const { containerId } = await start({ mounts: [{ hostPath, containerPath: "/volume" }] });
    expect(await berth.shell(containerId, "stat -c '%u %g' /volume")).toBe("65534 65534");
    await expect(berth.shell(containerId, "touch /volume/new")).rejects.toThrow("Permission denied");
  });

  test("a mapped volume receives later mounts of the host", async () => {
    const hostPath = await hostDirectory("propagation");
    await runCommand(["mount", "--bind", hostPath, hostPath]);
    try {
      await runCommand(["mount", "--make-rshared", hostPath]);
      await mkdir(path.join(hostPath, "later"));
      const propagation = "PROPAGATION_HOST_TO_CONTAINER" as const;
      const { containerId, podSandboxId } = await start({
        mounts: [{ hostPath, containerPath: "/m", propagation, ...mapped }],
      });
      await runCommand(["mount", "-t", "tmpfs", "later", path.join(hostPath, "later")]);
      expect(await berth.shell(containerId, "cat /proc/self/mountinfo")).toContain(" /m/later ");
      await berth.removePod(podSandboxId);
    } finally {
      await runCommand(["umount", "-R", hostPath]);
    }
  });

  test("a mount with mapped owners works in a pod without a user namespace, too", async () => {
    const hostPath = await hostDirectory("alone");
    const config = { linux: { securityContext: { namespaceOptions: { pid: "CONTAINER" as const } } } };
    const mounts = [{ hostPath, containerPath: "/volume", ...mapped }];
    expect(await run("stat -c '%u %g' /volume; cat /proc/self/uid_map", { mounts }, config)).toMatch(
      /^300000 300000\n +0 +0 /u,
    );
  });

  test("the pod's own files can be read, and written as in any pod", async () => {
    const dnsConfig = { servers: ["10.9.8.7"], searches: [], options: [] };
    const script = `cat /etc/resolv.conf /etc/hostname; grep -c localhost /etc/hosts;
      echo more >> /etc/hosts; echo x > /dev/shm/x; stat -c '%n %u %g %a' /dev/shm /dev/shm/x /etc/hosts; hostname`;
    const answer = await run(script, {}, { ...podOf(), dnsConfig, hostname: "own-name" });
    expect(answer).toMatch(/^nameserver 10\.9\.8\.7\nown-name\n\d+\n\/dev\/shm 0 0 1777\n\/dev\/shm\/x 0 0 644\n/u);
    expect(answer).toMatch(/\n\/etc\/hosts 0 0 \d+\nown-name$/u);
  });

  test("users and groups that the image does not know get an entry they can read", async () => {
    const script = "id -u; id -un; grep -c 4321 /etc/passwd";
    expect(await run(script, security({ runAsUser: { value: 4321n } }))).toBe("4321\n4321\n1");
  });

  test.each([
    ["root", 0n, false],
    ["a user", 1000n, false],
    ["a user at a terminal", 1000n, true],
  ])("%s opens /dev/stdout anew, in the container's process and in a command", async (_, uid, tty) => {
    const context = security({ runAsUser: { value: uid } });
    const script = "echo plain; echo opened > /dev/stdout; echo wrong > /dev/stderr; sleep 1000";
    const { containerId } = await start({ ...context, tty, command: ["sh", "-c", script] });
    const log = (await berth.waitForLog(containerId, "wrong")).map((line) => line.replace("\r", ""));
    const errors = tty ? "stdout" : "stderr";
    expect(log.toSorted()).toEqual([`stdout opened`, `stdout plain`, `${errors} wrong`].toSorted());
    const answer = await berth.call("ExecSync", {
      containerId,
      cmd: ["sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr"],
    });
    expect([answer.exitCode, answer.stdout.toString(), answer.stderr.toString()]).toEqual([0, "out\n", "err\n"]);
  });

  test("the pod's network works both ways, with its sysctls and its root's power over it", async () => {
    const sysctls = { "net.ipv4.ip_local_port_range": "1024 65000", "kernel.shm_rmid_forced": "1" };
    const linux = { ...podOf().linux, sysctls };
    const added = security({ capabilities: { addCapabilities: ["NET_ADMIN", "NET_RAW"] } });
    const { containerId, podSandboxId } = await start(added, { linux });
    expect(await berth.shell(containerId, "ping -c 1 -W 5 10.88.0.1")).toContain("1 packets received");
    expect(await berth.shell(containerId, "ping -c 1 -W 5 127.0.0.1")).toContain("1 packets received");
    await berth.shell(containerId, "httpd -p 8080 -h /www; ip link set lo mtu 1400");
    const { status } = await berth.call("PodSandboxStatus", { podSandboxId });
    const answer = await fetch(`http://${status?.network?.ip}:8080/`);
    expect(await answer.text()).toContain("Berth");
    const read = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced";
    expect((await berth.shell(containerId, read)).replaceAll("\t", " ")).toBe("1024 65000\n1");
  });

  test("the container's cgroup lies below the pod's, and its limits hold", async () => {
    const resources = { memoryLimitInBytes: 15n << 20n, memorySwapLimitInBytes: 15n << 20n, oomScoreAdj: 321n };
    const { containerId } = await start({ linux: { resources } });
    expect(await readFile(`/proc/${await hostPidOf(containerId)}/cgroup`, "utf8")).toContain(
      `:memory:${berth.workspace.cgroupParent}/`,
    );
    expect(await berth.shell(containerId, "cat /proc/1/oom_score_adj")).toBe("321");
    await berth.call("ExecSync", { containerId, cmd: ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"] });
    const pod = await berth.runPod({ runtimeHandler, config: podOf() });
    const { status } = await berth.runToEnd(pod, ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"], {
      linux: { resources },
    });
    expect(status).toMatchObject({ exitCode: 137, reason: "OOMKilled" });
  });

  test("what is hidden stays hidden, and the default seccomp profile holds", async () => {
    const context = {
      readonlyRootfs: true,
      noNewPrivs: true,
      seccomp: { profileType: "RuntimeDefault" as const },
      maskedPaths: ["/bin/ls", "/proc/interrupts"],
      readonlyPaths: ["/proc/sys"],
    };
    const script = `grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; touch /x; ls; wc -c < /proc/interrupts
      echo 1 > /proc/sys/kernel/shm_rmid_forced; unshare -U true; true`;
    const { containerId } = await start(security(context));
    const answer = await berth.call("ExecSync", { containerId, cmd: ["sh", "-c", script] });
    expect(answer.stdout.toString()).toBe("NoNewPrivs:\t1\nSeccomp:\t2\n0\n");
    for (const refusal of [
      "/x: Read-only",
      "ls: Permission denied",
      "shm_rmid_forced: Read-only",
      "unshare(0x10000000)",
    ])
      expect(answer.stderr.toString()).toContain(refusal);
  });

  test("a device of the host is bound, with the permissions that were given", async () => {
    const hostPath = path.join(await hostDirectory("device"), "loop-control");
    await runCommand(["mknod", "-m", "0666", hostPath, "c", "10", "237"]);
    const devices = [{ hostPath, containerPath: "/dev/given", permissions: "r" }];
    const script = "stat -c %F /dev/given; (: < /dev/given) && echo read; (: > /dev/given) && echo written; true";
    expect(await run(script, { devices })).toBe("character special file\nread");
  });

  test("a privileged container has power over its namespaces alone", async () => {
    const { containerId } = await start(security({ privileged: true }), podOf({}, { privileged: true }));
    expect(await berth.shell(containerId, "mount -t tmpfs x /tmp && [ -c /dev/fuse ] && echo done")).toBe("done");
    await expect(berth.shell(containerId, "echo 1 > /proc/sys/vm/drop_caches")).rejects.toThrow("Permission denied");
    await expect(berth.shell(containerId, "mknod /disk b 254 0")).rejects.toThrow("Operation not permitted");
  });

  test.each([
    ["network", "/sys", "sysfs"],
    ["pid", "/proc", "proc"],
    ["ipc", "/dev/shm", "tmpfs"],
  ] as const)("the host's %s namespace is seen, not owned", async (kind, place, type) => {
    const { containerId } = await start({}, podOf({ [kind]: "NODE" }));
    const pid = await hostPidOf(containerId);
    const name = kind === "network" ? "net" : kind;
    expect(await readlink(`/proc/${pid}/ns/${name}`)).toBe(await readlink(`/proc/self/ns/${name}`));
    expect(await berth.shell(containerId, `grep ' ${place} ' /proc/self/mounts | cut -d ' ' -f 3`)).toBe(type);
    expect(await berth.shell(containerId, "hostname x 2>&1; ip link set lo down 2>&1; id -u")).toMatch(
      /(?:not permitted[\s\S]*)+0$/u,
    );
  });

  test("a range of three ids will do", async () => {
    const small = { containerId: 0, hostId: 500_000, length: 3 };
    const usernsOptions = { mode: "POD" as const, uids: [small], gids: [small] };
    const script = "id -u; stat -c %u /home/web; touch /x; stat -c %u /x";
    expect(await run(script, {}, podOf({ pid: "POD", usernsOptions }))).toBe("0\n65534\n0");
  });

  test("stops, restarts of the daemon and statistics go as in any pod, and nothing is left", async () => {
    const before = await berth.findTraces();
    const { containerId, podSandboxId } = await start({}, podOf({ pid: "POD" }));
    await berth.daemon.stop("SIGKILL");
    await berth.daemon.start();
    expect(await berth.shell(containerId, "cat /proc/self/uid_map")).toContain("300000");
    const { stats } = await berth.call("ContainerStats", { containerId });
    expect(stats?.memory?.workingSetBytes?.value).toBeGreaterThan(0n);
    await berth.call("StopContainer", { containerId, timeout: 10n });
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 0 });
    await berth.removePod(podSandboxId);
    await berth.expectNothingNew(before);
  });

  test.each([
    ["a user", { ...own, runAsUser: { value: 70_000n } }, /user 70000 is not mapped/u],
    ["a group", { ...own, runAsUser: { value: 1n }, runAsGroup: { value: 70_000n } }, /group 70000 is not mapped/u],
    [
      "a namespace",
      { namespaceOptions: { usernsOptions: { mode: "NODE" as const } } },
      /differs from that of the pod/u,
    ],
  ])("%s that the pod has not is refused", async (_, context, message) => {
    const pod = await berth.runPod({ runtimeHandler, config: podOf() });
    const config = { metadata: { name: "c" }, image: { image: berth.image("busybox") }, ...security(context) };
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await berth.expectFailure("CreateContainer", request, Code.InvalidArgument, message);
  });
});

describe("RunPodSandbox refuses", () => {
  const refuse = async (usernsOptions: Init<cri.UserNamespace>, message: RegExp): Promise<void> => {
    const config = podConfig(berth.workspace, "refused", podOf({ usernsOptions }));
    await berth.expectFailure("RunPodSandbox", { config, runtimeHandler: "crun" }, Code.InvalidArgument, message);
  };
  const gids = [range];
  test.each([
    ["CONTAINER", { mode: "CONTAINER" }, /CONTAINER is not a mode of a pod/u],
    ["TARGET", { mode: "TARGET" }, /TARGET is not a mode of a pod/u],
    ["NODE with mappings", { mode: "NODE", gids }, /NODE takes no id mappings/u],
    ["POD without mappings", { mode: "POD" }, /exactly one id mapping is needed, not 0/u],
    ["two mappings", { mode: "POD", gids, uids: [range, { ...range, hostId: 2000 }] }, /exactly one .* not 2/u],
    ["no root", { mode: "POD", gids, uids: [{ ...range, containerId: 1 }] }, /container id 0 is not mapped/u],
    ["an empty range", { mode: "POD", gids, uids: [{ ...range, length: 0 }] }, /not a range of ids/u],
    ["ids past the last", { mode: "POD", gids, uids: [{ ...range, hostId: 4_294_901_760 }] }, /not a range of ids/u],
  ] as const)("%s", (_, options, message) => refuse(options, message));

  test.each(Object.keys(systemRuntimes))("what %s cannot do, as Status says", async (runtimeHandler) => {
    const { runtimeHandlers } = await berth.call("Status");
    const able = runtimeHandlers.filter(({ features }) => features?.userNamespaces).map(({ name }) => name);
    expect(able.toSorted()).toEqual(["", "crun", "runc"]);
    const config = podConfig(berth.workspace, "refused", podOf());
    const message = new RegExp(`not supported by runtime handler "${runtimeHandler}"`, "u");
    await berth.expectFailure("RunPodSandbox", { config, runtimeHandler }, Code.FailedPrecondition, message);
  });
});

test("NODE without mappings is the host's user namespace", async () => {
  const pod = await berth.runPod({ config: podOf({ usernsOptions: { mode: "NODE" } }) });
  const pid = await hostPidOf(await berth.startContainer(pod));
  expect(await readlink(`/proc/${pid}/ns/user`)).toBe(await readlink("/proc/self/ns/user"));
});
