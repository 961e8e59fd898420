import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { cri } from "../../cri-api/index.ts";
import {
  bindMount,
  cgroupLayout,
  kernelCapabilities,
  mountTmpfs,
  readMountTable,
  run,
  unmount,
  which,
} from "../../native/index.ts";
import { capabilityNames } from "./capabilities.ts";
import { buildContainerSpec, buildPauseSpec } from "./container-spec.ts";
import type { ContainerSpecInput, HostFacts } from "./input.ts";
import type { Spec } from "./oci-types.ts";
import { parseSeccompProfile } from "./seccomp-file.ts";
import { withBuiltSeccomp } from "./seccomp-reuse.ts";
import { containerConfig, criMount, imageDefaults, linuxResources, sandboxConfig, securityContext } from "./testing.ts";
import { resolveUser } from "./user.ts";

const packages = join(import.meta.dirname, "../../.cache/packages"); // what the tests' set-up downloads
const probeSource = join(import.meta.dirname, "testdata/probe.c");
const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" };
const runtimeDefault = securityContext({ seccomp: { profileType: "RuntimeDefault", localhostRef: "" } });

let directory = "";
let rootfs = "";
let host: HostFacts;
let serial = 0;

async function execute(
  program: string,
  ...args: readonly string[]
): Promise<{ out: string; err: string; code: number }> {
  const path = await which(program, env.PATH);
  if (!path) throw new Error(`${program} is not installed`);
  const { status, stdout, stderr } = await run({ argv: [path, ...args], env, signal: AbortSignal.timeout(20_000) });
  return { out: stdout.toString(), err: stderr.toString(), code: status.kind === "exited" ? status.code : -1 };
}

async function must(program: string, ...args: readonly string[]): Promise<void> {
  const { err, code } = await execute(program, ...args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${err}`);
}

beforeAll(async () => {
  directory = await mkdtemp("/tmp/berth-spec-");
  rootfs = join(directory, "rootfs");
  const found = (await readdir(packages)).filter((name) => name.endsWith(".deb"));
  expect(found.length).toBeGreaterThanOrEqual(2);
  for (const name of found) await must("dpkg-deb", "-x", join(packages, name), rootfs);
  await must("chroot", rootfs, "/bin/busybox", "--install", "-s", "/bin");
  for (const name of ["proc", "dev", "sys", "etc", "srv", "tmp"]) await mkdir(join(rootfs, name), { recursive: true });
  await writeFile(join(rootfs, "etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n");
  await writeFile(join(rootfs, "etc/group"), "root:x:0:\napp:x:1000:\nextra:x:1234:app\n");
  await must("gcc", "-static", "-O1", "-o", join(rootfs, "bin/probe"), probeSource);
  for (const name of ["resolv.conf", "hostname", "hosts"])
    await writeFile(join(directory, name), `${name} of the pod\n`);
  await mkdir(join(directory, "shm"));
  await mountTmpfs({ target: join(directory, "shm"), sizeBytes: 1024 * 1024, mode: 0o1777 });
  const { effective, bounding } = await kernelCapabilities();
  host = {
    capabilities: capabilityNames(effective & bounding),
    oomScoreAdjMin: Number(await readFile("/proc/self/oom_score_adj", "utf8")),
    seccompSupported: true,
    cgroupLayout: await cgroupLayout(),
    recursiveReadOnlyMounts: true,
  };
});

afterAll(async () => {
  const signal = AbortSignal.timeout(10_000);
  await unmount(join(directory, "shm"), { signal });
  await rm(directory, { recursive: true, force: true });
});

function inputFor(
  config: Partial<cri.ContainerConfig>,
  overrides: Partial<ContainerSpecInput> = {},
): ContainerSpecInput {
  const id = `berth-spec-${process.pid}-${++serial}`;
  const full = containerConfig({ linux: { resources: null, securityContext: runtimeDefault }, ...config });
  return {
    id,
    config: full,
    sandbox: sandboxConfig(),
    image: { ...imageDefaults, entrypoint: [], cmd: [], workingDir: "" },
    rootfsPath: rootfs,
    user: { uid: 0, gid: 0, additionalGids: [0], home: "/root" },
    mounts: [],
    devices: [],
    podFiles: {
      resolvConf: join(directory, "resolv.conf"),
      hostname: join(directory, "hostname"),
      hosts: join(directory, "hosts"),
      shm: join(directory, "shm"),
    },
    namespaces: { pid: { kind: "new" } },
    cgroup: { path: `/${id}`, layout: host.cgroupLayout },
    host,
    hostname: "pod",
    ...overrides,
  };
}

async function runSpec(runtime: string, id: string, spec: Spec): Promise<{ out: string; err: string; code: number }> {
  const bundle = join(directory, id);
  await mkdir(bundle);
  await writeFile(join(bundle, "config.json"), JSON.stringify(spec));
  const root = ["--root", join(directory, `state-${runtime}`)];
  try {
    return await execute(runtime, ...root, "run", "--bundle", bundle, id);
  } finally {
    await execute(runtime, ...root, "delete", "--force", id);
  }
}

async function runContainer(
  runtime: string,
  config: Partial<cri.ContainerConfig>,
  overrides: Partial<ContainerSpecInput> = {},
): Promise<{ out: string; err: string; code: number }> {
  const input = inputFor(config, overrides);
  return await runSpec(runtime, input.id, buildContainerSpec(input));
}

function shell(script: string): readonly string[] {
  return ["/bin/sh", "-c", script];
}

function answersOf(out: string): Record<string, string> {
  return Object.fromEntries(
    out
      .trim()
      .split("\n")
      .map((line) => line.split("=", 2) as [string, string]),
  );
}

const linuxOf = (
  context: Partial<cri.LinuxContainerSecurityContext>,
  resources: cri.LinuxContainerResources | null = null,
): cri.LinuxContainerConfig => ({ resources, securityContext: { ...runtimeDefault, ...context } });

describe.each(["crun", "runc"])("a spec run by %s", (runtime) => {
  test("lets ordinary programs run under the default seccomp profile", async () => {
    const { out, err, code } = await runContainer(runtime, {
      command: shell("ls / >/dev/null && id -u && sleep 0.1 && (echo piped | cat) && grep Seccomp: /proc/self/status"),
    });
    expect({ err, code }).toEqual({ err: "", code: 0 });
    expect(out).toBe("0\npiped\nSeccomp:\t2\n");
  });

  test("answers EPERM for what the profile forbids and ENOSYS for what no program may know", async () => {
    const { out, err } = await runContainer(runtime, { command: ["/bin/probe"] });
    expect(err).toBe("");
    expect(answersOf(out)).toEqual({
      clone: "ok",
      "clone-newuser": "EPERM",
      "clone-newnet": "EPERM",
      "clone-newns": "EPERM",
      clone3: "ENOSYS",
      "unshare-files": "ok",
      "unshare-newuser": "EPERM",
      "unshare-newtime": "EPERM",
      "unshare-newnet-files": "EPERM",
      setns: "EPERM",
      mount: "EPERM",
      bpf: "EPERM",
      keyctl: "EPERM",
      io_uring_setup: "EPERM",
      userfaultfd: "EPERM",
      perf_event_open: "EPERM",
      settimeofday: "EPERM",
      sethostname: "EPERM",
      init_module: "EPERM",
      syslog: "EPERM",
      ptrace: "ok",
      "personality-read": "ok",
      "personality-svr4": "ENOSYS",
      "socket-inet": "ok",
      "socket-unix": "ok",
      "socket-vsock": "EPERM",
      unknown: "ENOSYS",
    });
  });

  test("opens the profile where a capability was given", async () => {
    const capabilities = { addCapabilities: ["SYS_ADMIN"], dropCapabilities: [], addAmbientCapabilities: [] };
    const { out } = await runContainer(runtime, { command: ["/bin/probe"], linux: linuxOf({ capabilities }) });
    const answers = answersOf(out);
    expect(answers).toMatchObject({ "clone-newns": "ok", "unshare-newuser": "ok", setns: "EBADF", clone3: "EINVAL" });
    expect(answers).toMatchObject({ keyctl: "EPERM", init_module: "EPERM" });
  });

  test("applies a profile file in place of ours", async () => {
    const localhostSeccomp = parseSeccompProfile(
      Buffer.from(
        JSON.stringify({
          defaultAction: "SCMP_ACT_ALLOW",
          syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95 }],
        }),
      ),
    );
    const { err, code } = await runContainer(
      runtime,
      {
        command: ["mkdir", "/tmp/made"],
        linux: linuxOf({ seccomp: { profileType: "Localhost", localhostRef: "/profiles/p.json" } }),
      },
      { localhostSeccomp },
    );
    expect(err).toContain("not supported");
    expect(code).toBe(1);
  });

  test("runs as the image's user with its groups, home and directory", async () => {
    const files = {
      passwd: await readFile(join(rootfs, "etc/passwd")),
      group: await readFile(join(rootfs, "etc/group")),
    };
    const { out } = await runContainer(
      runtime,
      { command: shell('echo "$(id -u):$(id -g):$(id -G) $HOME $PWD"'), workingDir: "/srv" },
      { user: resolveUser(files, null, "app") },
    );
    expect(out).toBe("1000:1000:1000 1234 /srv /srv\n");
  });

  test("gives the default capabilities and only those", async () => {
    const { out } = await runContainer(runtime, { command: shell("grep Cap /proc/self/status") });
    expect(out).toBe(
      [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000000005fb",
        "CapEff:\t00000000000005fb",
        "CapBnd:\t00000000000005fb",
        "CapAmb:\t0000000000000000",
        "",
      ].join("\n"),
    );
  });

  test("gives a privileged container what the daemon holds, a writable /sys and no filter", async () => {
    const mask = (await kernelCapabilities()).bounding.toString(16).padStart(16, "0");
    const { out, err } = await runContainer(runtime, {
      command: shell("grep -E 'CapEff|Seccomp:' /proc/self/status; grep ' /sys ' /proc/mounts"),
      linux: linuxOf({ privileged: true }),
    });
    expect(err).toBe("");
    expect(out).toContain(`CapEff:\t${mask}\nSeccomp:\t0\n`);
    expect(out).toContain("sysfs /sys sysfs rw,");
  });

  test("mounts the pod's files, a read-only root and what the container asked for", async () => {
    const source = join(directory, "rootfs/srv");
    const { out, err } = await runContainer(
      runtime,
      {
        command: shell("cat /etc/resolv.conf /etc/hostname; touch /new; touch /data/new; touch /dev/shm/x && echo shm"),
        linux: linuxOf({ readonlyRootfs: true }),
      },
      { mounts: [{ mount: criMount({ readonly: true }), sourcePath: source }] },
    );
    expect(out).toBe("resolv.conf of the pod\nhostname of the pod\nshm\n");
    expect(err).toContain("touch: /new: Read-only file system");
    expect(err).toContain("touch: /data/new: Read-only file system");
  });

  test("makes a recursively read-only mount read-only all the way down", async () => {
    const source = join(directory, `rro-${runtime}`);
    await mkdir(join(source, "below"), { recursive: true });
    await mountTmpfs({ target: join(source, "below"), sizeBytes: 4096, mode: 0o755 });
    try {
      const outcomes = [];
      for (const recursiveReadOnly of [false, true]) {
        const mount = criMount({ readonly: true, recursiveReadOnly });
        const { code } = await runContainer(
          runtime,
          { command: ["touch", "/data/below/new"] },
          { mounts: [{ mount, sourcePath: source }] },
        );
        outcomes.push(code);
      }
      expect(outcomes).toEqual([0, 1]);
    } finally {
      await unmount(join(source, "below"), { signal: AbortSignal.timeout(5000) });
    }
  });

  test("lets a mount through from the host where the source's own mount is shared", async () => {
    const source = join(directory, `shared-${runtime}`);
    await mkdir(source);
    await bindMount({ source, target: source, propagation: "shared" });
    try {
      const config = { command: shell("grep ' /data ' /proc/self/mountinfo") };
      const mount = criMount({ propagation: "PROPAGATION_BIDIRECTIONAL" });
      const mountTable = await readMountTable();
      const { out } = await runContainer(runtime, config, { mounts: [{ mount, sourcePath: source }], mountTable });
      expect(out).toMatch(/ \/data .* shared:\d+ - /);
    } finally {
      await unmount(source, { signal: AbortSignal.timeout(5000) });
    }
  });

  test("masks and protects the paths it is told to", async () => {
    const { out, err } = await runContainer(runtime, {
      command: shell("wc -c < /proc/interrupts; ls /sys/firmware; echo 1 > /proc/sys/kernel/printk"),
      linux: linuxOf({ maskedPaths: ["/proc/interrupts", "/sys/firmware"], readonlyPaths: ["/proc/sys"] }),
    });
    expect(out).toBe("0\n");
    expect(err).toContain("Read-only file system");
  });

  test("limits memory and cpu, and writes the score it was asked for as far as the kernel lets it", async () => {
    const resources = linuxResources({
      memoryLimitInBytes: 64n * 1024n * 1024n,
      cpuShares: 512n,
      cpuQuota: 50_000n,
      cpuPeriod: 100_000n,
      oomScoreAdj: -500n,
    });
    const { out, err } = await runContainer(runtime, {
      command: shell(
        "cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
      ),
      linux: linuxOf({}, resources),
    });
    expect({ out, err }).toEqual({ out: `${Math.max(-500, host.oomScoreAdjMin)}\n67108864\n`, err: "" });
  });

  test("makes the devices it is given and lets no other through", async () => {
    const fuse = {
      containerPath: "/dev/null2",
      hostPath: "/dev/null",
      type: "c",
      major: 1,
      minor: 3,
      fileMode: 0o666,
      uid: 0,
      gid: 0,
    } as const;
    const { out, err } = await runContainer(
      runtime,
      {
        command: shell("echo x > /dev/null2 && echo wrote; rm -f /tmp/kmsg; mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"),
        linux: linuxOf({
          capabilities: { addCapabilities: ["MKNOD"], dropCapabilities: [], addAmbientCapabilities: [] },
        }),
      },
      { devices: [{ ...fuse, permissions: "rw" }] },
    );
    expect(out).toBe("wrote\n");
    expect(err).toMatch(/not permitted/);
  });

  test("holds a pause process that owns nothing", async () => {
    const id = `berth-spec-pause-${process.pid}-${runtime}`;
    const spec = buildPauseSpec({
      id,
      sandbox: sandboxConfig(),
      rootfsPath: rootfs,
      args: ["/bin/sh", "-c", "echo $$; id -u; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status"],
      namespaces: {},
      cgroup: { path: `/${id}`, layout: host.cgroupLayout },
      host,
    });
    const { out, err } = await runSpec(runtime, id, spec);
    expect({ out, err }).toEqual({
      out: "1\n65535\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
      err: "",
    });
  });
});

test("crun runs under a filter that it built for another container", async () => {
  const first = inputFor({ command: ["/bin/probe"] });
  const spec = buildContainerSpec(first);
  const bundle = join(directory, first.id);
  const root = join(directory, "state-reuse");
  await mkdir(bundle);
  await writeFile(join(bundle, "config.json"), JSON.stringify(spec));
  await must("crun", "--root", root, "create", "--bundle", bundle, first.id);
  const filter = await readFile(join(root, first.id, "seccomp.bpf"));
  await must("crun", "--root", root, "delete", "--force", first.id);

  const second = inputFor({ command: ["/bin/probe"] });
  const reused = await runSpec("crun", second.id, withBuiltSeccomp(buildContainerSpec(second), filter));
  const third = inputFor({ command: ["/bin/probe"] });
  expect(reused).toEqual(await runSpec("crun", third.id, buildContainerSpec(third)));
  expect(answersOf(reused.out)).toMatchObject({ clone: "ok", mount: "EPERM", clone3: "ENOSYS" });
});
