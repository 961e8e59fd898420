import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { buildContainerSpec, buildPauseSpec } from "./container-spec.ts";
import type { ContainerSpecInput } from "./input.ts";
import type { Spec } from "./oci-types.ts";
import {
  ableHost,
  containerConfig,
  criMount,
  linuxResources,
  sandboxConfig,
  securityContext,
  specInput,
} from "./testing.ts";

/** A change in one of these files is a change in what containers get. */
function readGolden(name: string): unknown {
  return JSON.parse(readFileSync(join(import.meta.dirname, "testdata", `${name}.json`), "utf8"));
}

/** As the runtime reads it. The profile has tests of its own; here only whether there is one. */
function asWritten(spec: Spec): unknown {
  const { seccomp, ...linux } = spec.linux;
  const shown = seccomp ? { ...linux, seccomp: { defaultAction: seccomp.defaultAction } } : linux;
  return JSON.parse(JSON.stringify({ ...spec, linux: shown }));
}

const fuse = {
  containerPath: "/dev/fuse",
  hostPath: "/dev/fuse",
  type: "c",
  major: 10,
  minor: 229,
  fileMode: 0o666,
  uid: 0,
  gid: 0,
  permissions: "rwm",
} as const;

const plain = specInput();

const full = specInput({
  config: containerConfig({
    command: ["/bin/app"],
    args: ["--verbose"],
    workingDir: "/work/",
    envs: [{ key: "MODE", value: Buffer.from("fast") }],
    mounts: [],
    tty: true,
    annotations: { "run.oci.keep_original_groups": "1", "org.systemd.property.ExecStart": "'x'" },
    linux: {
      resources: linuxResources({
        cpuShares: 512n,
        cpuQuota: 50_000n,
        cpuPeriod: 100_000n,
        memoryLimitInBytes: 268_435_456n,
        oomScoreAdj: 900n,
        hugepageLimits: [{ pageSize: "2MB", limit: 0n }],
        unified: { "memory.high": "200M" },
      }),
      securityContext: securityContext({
        runAsUser: { value: 1000n },
        readonlyRootfs: true,
        noNewPrivs: true,
        maskedPaths: ["/proc/keys"],
        readonlyPaths: ["/proc/sys"],
        seccomp: { profileType: "RuntimeDefault", localhostRef: "" },
        capabilities: { addCapabilities: ["NET_ADMIN"], dropCapabilities: ["KILL"], addAmbientCapabilities: [] },
      }),
    },
  }),
  user: { uid: 1000, gid: 1000, additionalGids: [1000, 10], home: "/home/app", username: "app" },
  mounts: [
    { mount: criMount({ containerPath: "/etc/hosts", readonly: true }), sourcePath: "/kubelet/etc-hosts" },
    { mount: criMount({ containerPath: "/data", propagation: "PROPAGATION_BIDIRECTIONAL" }), sourcePath: "/srv/data" },
  ],
  mountTable: [{ mountPoint: "/", shared: 1 }],
  devices: [fuse],
  namespaces: { network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts", pid: { kind: "path", path: "/proc/7/ns/pid" } },
});

const privileged = specInput({
  config: containerConfig({ linux: { resources: null, securityContext: securityContext({ privileged: true }) } }),
  sandbox: sandboxConfig({ privileged: true }),
  namespaces: { pid: { kind: "host" } },
  host: { ...ableHost, capabilities: ["CAP_CHOWN", "CAP_SYS_ADMIN"], devices: [fuse], oomScoreAdjMin: 0 },
});

const v1: ContainerSpecInput = {
  ...full,
  config: {
    ...full.config,
    linux: {
      resources: linuxResources({ memoryLimitInBytes: 15_728_640n }),
      securityContext: full.config.linux?.securityContext ?? null,
    },
  },
  cgroup: { path: "/pod/c1", layout: "v1" },
  host: { ...ableHost, cgroupLayout: "v1", swapAccounting: false },
};

test.each([
  ["plain", plain],
  ["full", full],
  ["privileged", privileged],
  ["cgroup-v1", v1],
])("the %s container's spec is as reviewed", (name, input) => {
  expect(asWritten(buildContainerSpec(input))).toEqual(readGolden(name));
});

test("the pause process's spec is as reviewed", () => {
  const spec = buildPauseSpec({
    id: "p1",
    sandbox: sandboxConfig(),
    rootfsPath: "/run/berth/pause",
    args: ["/berth-helper", "pause"],
    namespaces: { network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts" },
    cgroup: { path: "/pod/p1", layout: "v2" },
    host: { ...ableHost, oomScoreAdjMin: 0 },
  });
  expect(asWritten(spec)).toEqual(readGolden("pause"));
});

test("the pause process runs under the default AppArmor profile where one is loaded", () => {
  const spec = buildPauseSpec({
    id: "p1",
    sandbox: sandboxConfig(),
    rootfsPath: "/pause",
    args: ["/pause"],
    namespaces: {},
    cgroup: { path: "/p", layout: "v2" },
    host: { ...ableHost, apparmor: { defaultProfile: "berth-default" } },
  });
  expect(spec.process.apparmorProfile).toBe("berth-default");
});

describe("buildContainerSpec", () => {
  test("writes a version that crun 1.8.1 takes", () => {
    expect(buildContainerSpec(plain).ociVersion).toMatch(/^1\.0\./);
  });

  test("passes no annotation of the user on: runtimes read some as orders (CVE-2024-3154)", () => {
    expect(buildContainerSpec(full).annotations).toBeUndefined();
    expect(JSON.stringify(buildContainerSpec(full))).not.toMatch(/run\.oci|org\.systemd/);
  });

  test("gives a container its own cgroup namespace on v2, unless it is privileged", () => {
    const kinds = (input: ContainerSpecInput): string[] =>
      buildContainerSpec(input).linux.namespaces.map(({ type }) => type);
    expect(kinds(plain)).toContain("cgroup");
    expect(kinds(privileged)).toEqual(["mount"]);
    expect(kinds(v1)).not.toContain("cgroup");
  });

  test("always writes a score, so that the daemon's own is not inherited", () => {
    expect(buildContainerSpec(plain).process.oomScoreAdj).toBe(0);
    const host = { ...ableHost, oomScoreAdjMin: 300 };
    expect(buildContainerSpec({ ...plain, host }).process.oomScoreAdj).toBe(300);
  });

  test("makes no device in a host's /dev mounted over the container's", () => {
    const mount = criMount({ containerPath: "/dev/", hostPath: "/dev" });
    const spec = buildContainerSpec({ ...privileged, mounts: [{ mount, sourcePath: "/dev" }] });
    expect(spec.linux.devices).toEqual([]);
  });

  test("never runs a container whose localhost profile was not handed in", () => {
    const context = securityContext({ seccomp: { profileType: "Localhost", localhostRef: "/p.json" } });
    const config = containerConfig({ linux: { resources: null, securityContext: context } });
    expect(() => buildContainerSpec({ ...plain, config })).toThrow(
      expect.objectContaining({ code: Code.FailedPrecondition }),
    );
  });

  test("is JSON without loss", () => {
    for (const input of [plain, full, privileged, v1]) {
      const spec = buildContainerSpec(input);
      expect(JSON.parse(JSON.stringify(spec))).toEqual(spec);
    }
  });
});

test("the pause process takes the pod's user within bounds", () => {
  const build = (value: bigint): Spec =>
    buildPauseSpec({
      id: "p1",
      sandbox: sandboxConfig({ runAsUser: { value }, runAsGroup: { value: 5n } }),
      rootfsPath: "/pause",
      args: ["/pause"],
      namespaces: {},
      cgroup: { path: "/p", layout: "v1" },
      host: ableHost,
    });
  expect(build(7n).process.user).toMatchObject({ uid: 7, gid: 5, additionalGids: [5] });
  expect(() => build(2n ** 32n)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
});

describe("a pod with a user namespace", () => {
  const mapping = { hostId: 100_000, containerId: 0, length: 1000 };
  const sandbox = sandboxConfig({
    namespaceOptions: {
      network: "POD",
      pid: "POD",
      ipc: "POD",
      targetId: "",
      usernsOptions: { mode: "POD", uids: [mapping], gids: [mapping] },
    },
  });
  const namespaces = { user: "/ns/user", network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts" };
  const input = specInput({ sandbox, namespaces: { ...namespaces, pid: { kind: "new" } }, devices: [fuse] });

  test("gives its containers that namespace by its path alone, and the host's device nodes", () => {
    const { linux, mounts } = buildContainerSpec(input);
    expect(linux.namespaces).toContainEqual({ type: "user", path: "/ns/user" });
    expect(linux).not.toHaveProperty("uidMappings"); // runc complains of both, in the container's own log
    expect(linux.devices).toEqual([]);
    expect(mounts.at(-1)).toMatchObject({ destination: "/dev/fuse", type: "bind", source: "/dev/fuse" });
  });

  test.each([
    [{ uid: 1000, gid: 0, additionalGids: [0] }, /user 1000 is not mapped/],
    [{ uid: 0, gid: 1000, additionalGids: [1000] }, /group 1000 is not mapped/],
    [{ uid: 0, gid: 0, additionalGids: [0, 2000] }, /group 2000 is not mapped/],
  ])("refuses the user %o, who is not in it", (user, message) => {
    expect(() => buildContainerSpec({ ...input, user })).toThrow(message);
  });

  test("runs its pause process there, as a user that it has", () => {
    const pause = { id: "p1", rootfsPath: "/pause", args: ["/pause"], namespaces, host: ableHost };
    const { linux, process } = buildPauseSpec({ ...pause, sandbox, cgroup: { path: "/p", layout: "v1" } });
    expect(linux.namespaces).toContainEqual({ type: "user", path: "/ns/user" });
    expect(process.user).toMatchObject({ uid: 999, gid: 999 });
  });
});
