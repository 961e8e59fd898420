import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import type { ResolvedMount } from "./input.ts";
import { checkMountPropagation, rootfsPropagation } from "./mount-propagation.ts";
import { buildMounts, validateMount } from "./mounts.ts";
import { criMount } from "./testing.ts";

const podFiles = { resolvConf: "/pod/resolv.conf", hostname: "/pod/hostname", hosts: "/pod/hosts", shm: "/pod/shm" };
const facts = {
  isPrivileged: false,
  hasReadonlyRootfs: false,
  recursiveReadOnlyMounts: true,
  idMappedMounts: true,
} as const;
const at = (containerPath: string, sourcePath = "/srv/x"): ResolvedMount => ({
  mount: criMount({ containerPath, hostPath: sourcePath }),
  sourcePath,
});
const destinations = (requested: readonly ResolvedMount[]): string[] =>
  buildMounts(podFiles, requested, facts).map(({ destination }) => destination);

const imageSpec = (image: string) => ({
  image,
  annotations: {},
  userSpecifiedImage: "",
  runtimeHandler: "",
  imageRef: "",
});

describe("buildMounts", () => {
  test("mounts the kernel's file systems and the pod's files, parents first", () => {
    expect(destinations([])).toEqual([
      "/proc",
      "/dev",
      "/sys",
      "/dev/pts",
      "/dev/mqueue",
      "/dev/shm",
      "/etc/resolv.conf",
      "/etc/hostname",
      "/etc/hosts",
      "/sys/fs/cgroup",
    ]);
  });

  test("sorts by depth and keeps the order of equals", () => {
    const asked = ["/a/b/c", "/z", "/a/b", "/a", "/b/a"].map((path) => at(path));
    const own = destinations(asked).filter((path) => /^\/[abz]/.test(path));
    expect(own).toEqual(["/z", "/a", "/a/b", "/b/a", "/a/b/c"]);
  });

  test.each(["/etc/hosts", "/etc/hosts/", "//etc//hosts", "/etc/./hosts", "/etc/x/../hosts"])(
    "lets a mount on %s take the place of the pod's",
    (path) => {
      const found = buildMounts(podFiles, [at(path, "/kubelet/hosts")], facts).filter(
        ({ destination }) => destination === "/etc/hosts",
      );
      expect(found.map(({ source }) => source)).toEqual(["/kubelet/hosts"]);
    },
  );

  test("drops what would be mounted below a mount on /dev or /sys", () => {
    expect(destinations([at("/dev", "/dev")]).filter((path) => path.startsWith("/dev"))).toEqual(["/dev"]);
    expect(destinations([at("/sys/", "/sys")]).filter((path) => path.startsWith("/sys"))).toEqual(["/sys"]);
    expect(destinations([at("/device")])).toContain("/dev/shm");
  });

  test("leaves the later of two mounts on one place", () => {
    const found = buildMounts(podFiles, [at("/a", "/one"), at("/a/", "/two")], facts);
    expect(found.filter(({ destination }) => destination === "/a").map(({ source }) => source)).toEqual(["/two"]);
  });

  test.each([
    [{}, ["rbind", "rprivate", "rw"]],
    [{ readonly: true }, ["rbind", "rprivate", "ro"]],
    [{ readonly: true, recursiveReadOnly: true }, ["rbind", "rprivate", "rro"]],
    [{ mountOptions: ["noexec", "nosuid", "noexec"] }, ["rbind", "rprivate", "rw", "noexec", "nosuid"]],
    [
      { image: imageSpec("busybox"), hostPath: "", readonly: false, mountOptions: ["noexec"] },
      ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"],
    ],
    [{ propagation: "PROPAGATION_HOST_TO_CONTAINER" }, ["rbind", "rslave", "rw"]],
    [{ propagation: "PROPAGATION_BIDIRECTIONAL" }, ["rbind", "rshared", "rw"]],
  ] as const)("turns %o into options", (overrides, options) => {
    const [own] = buildMounts(podFiles, [{ mount: criMount(overrides), sourcePath: "/srv/data" }], facts).filter(
      ({ destination }) => destination === "/data",
    );
    expect(own).toEqual({ destination: "/data", type: "bind", source: "/srv/data", options });
  });

  test("writes /sys and the cgroup tree only for a privileged container", () => {
    for (const isPrivileged of [false, true]) {
      const found = buildMounts(podFiles, [], { ...facts, isPrivileged }).filter(({ destination }) =>
        destination.startsWith("/sys"),
      );
      for (const { options } of found) expect(options.at(-1)).toBe(isPrivileged ? "rw" : "ro");
    }
  });

  test("makes the pod's files read-only under a read-only root, and hostname always", () => {
    const access = (hasReadonlyRootfs: boolean): string[] =>
      buildMounts(podFiles, [], { ...facts, hasReadonlyRootfs })
        .filter(({ destination }) => destination.startsWith("/etc"))
        .map(({ options }) => (options.includes("ro") ? "ro" : "rw"));
    expect(access(false)).toEqual(["rw", "ro", "rw"]);
    expect(access(true)).toEqual(["ro", "ro", "ro"]);
  });

  test.each([
    "/proc",
    "/proc/sys",
    "/proc/self/attr",
    "/proc/../proc/sys/kernel",
    "/",
    "//",
    "/x/..",
    "relative",
    "",
    "/a\nb",
  ])("refuses a mount on %j", (path) => {
    expect(() => destinations([at(path)])).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  test("lets lxcfs's files and the host's own /proc through", () => {
    expect(destinations([at("/proc/meminfo"), at("/proc/cpuinfo/")])).toContain("/proc/meminfo");
    expect(destinations([at("/proc", "/proc")])).toContain("/proc");
    expect(destinations([at("/process")])).toContain("/process");
  });

  test("fails by the name kubelet looks for when rro mounts are not supported", () => {
    const mount = criMount({ readonly: true, recursiveReadOnly: true });
    const build = (): unknown =>
      buildMounts(podFiles, [{ mount, sourcePath: "/x" }], { ...facts, recursiveReadOnlyMounts: false });
    expect(build).toThrow(/^RROUnsupported/);
    expect(build).toThrow(expect.objectContaining({ code: Code.FailedPrecondition }));
  });
});

describe("a mount with mapped owners", () => {
  const mapping = { hostId: 100_000, containerId: 0, length: 65_536 };
  const mount = criMount({ uidMappings: [mapping], gidMappings: [{ ...mapping, hostId: 200_000 }] });
  const build = (overrides: Partial<typeof facts> = {}) =>
    buildMounts(podFiles, [{ mount, sourcePath: "/x" }], { ...facts, ...overrides }).find(
      ({ destination }) => destination === "/data",
    );

  test("carries both mappings", () => {
    expect(build()).toMatchObject({
      uidMappings: [{ containerID: 0, hostID: 100_000, size: 65_536 }],
      gidMappings: [{ containerID: 0, hostID: 200_000, size: 65_536 }],
    });
  });
  test("fails under a runtime that cannot map", () => {
    const attempt = (): unknown =>
      buildMounts(podFiles, [{ mount, sourcePath: "/x" }], { ...facts, idMappedMounts: false });
    expect(attempt).toThrow(/id-mapped mount "\/data" is not supported by this runtime handler/);
    expect(attempt).toThrow(expect.objectContaining({ code: Code.FailedPrecondition }));
  });
});

describe("in a user namespace", () => {
  const range = { hostId: 100_000, length: 65_536 };
  const userNamespace = {
    maps: { uids: range, gids: range },
    isHostNetwork: false,
    isHostIpc: false,
    showsHostQueues: true,
    isHostPid: false,
  };
  const build = (overrides: Partial<typeof userNamespace> = {}, isPrivileged = false) =>
    buildMounts(podFiles, [], { ...facts, isPrivileged, userNamespace: { ...userNamespace, ...overrides } });
  const types = (overrides: Partial<typeof userNamespace>): (string | undefined)[] =>
    ["/proc", "/dev/mqueue", "/sys"].map((path) => build(overrides).find((each) => each.destination === path)?.type);

  test("nothing differs where the pod has its own namespaces", () => {
    expect(build()).toEqual(buildMounts(podFiles, [], facts));
  });
  test("the host's own file systems are shown where their namespace is the host's", () => {
    expect(types({ isHostPid: true })).toEqual(["bind", "mqueue", "sysfs"]);
    expect(types({ isHostIpc: true })).toEqual(["proc", "bind", "sysfs"]);
    expect(types({ isHostIpc: true, showsHostQueues: false })).toEqual(["proc", undefined, "sysfs"]);
    expect(types({ isHostNetwork: true })).toEqual(["proc", "mqueue", "bind"]);
  });
  test("the host's /sys is read-only but for a privileged container", () => {
    const access = (isPrivileged: boolean) =>
      build({ isHostNetwork: true }, isPrivileged)
        .find(({ destination }) => destination === "/sys")
        ?.options.at(-1);
    expect([access(false), access(true)]).toEqual(["ro", "rw"]);
  });
  test("terminals belong to the group tty if that is mapped", () => {
    const options = (length: number) =>
      build({ maps: { uids: range, gids: { hostId: 1, length } } }).find((each) => each.type === "devpts")?.options;
    expect(options(6)).toContain("gid=5");
    expect(options(5)).not.toContain("gid=5");
  });
});

describe("validateMount", () => {
  test.each([
    [{ recursiveReadOnly: true }, /conflicts with read-write mount/],
    [
      { recursiveReadOnly: true, readonly: true, propagation: "PROPAGATION_HOST_TO_CONTAINER" },
      /requires private propagation/,
    ],
    [{ recursiveReadOnly: true, readonly: true, propagation: "PROPAGATION_BIDIRECTIONAL" }, /requires private/],
    [{ imageSubPath: "x" }, /image_sub_path needs an image/],
    [{ image: imageSpec("busybox") }, /host_path and image exclude each other/],
    [{ image: imageSpec(""), hostPath: "" }, /the image has no name/],
    [
      { image: imageSpec("busybox"), hostPath: "", propagation: "PROPAGATION_BIDIRECTIONAL" },
      /needs private propagation/,
    ],
    [{ image: imageSpec("busybox"), hostPath: "", imageSubPath: "../x" }, /leads out of the image/],
    [{ image: imageSpec("busybox"), hostPath: "", imageSubPath: "/x" }, /leads out of the image/],
    [{ image: imageSpec("busybox"), hostPath: "", imageSubPath: "a\nb" }, /control character/],
    [{ mountOptions: ["noexec", "remount"] }, /mount option "remount" is none of noexec, nodev, nosuid/],
    [{ uidMappings: [{ hostId: 1, containerId: 0, length: 1 }] }, /uidMappings and gidMappings need each other/],
    [{ gidMappings: [{ hostId: 1, containerId: 0, length: 1 }] }, /uidMappings and gidMappings need each other/],
    [
      {
        uidMappings: [{ hostId: 1, containerId: 0, length: 0 }],
        gidMappings: [{ hostId: 1, containerId: 0, length: 1 }],
      },
      /id mapping 0:1:0 is not a range/,
    ],
    [
      {
        uidMappings: [{ hostId: 1, containerId: 0, length: 1 }],
        gidMappings: Array.from({ length: 341 }, (_, index) => ({ hostId: index, containerId: index, length: 1 })),
      },
      /more than 340 id mappings/,
    ],
    [{ hostPath: "" }, /host_path is empty/],
    [{ hostPath: "relative" }, /not an absolute path/],
    [{ containerPath: "" }, /container_path is empty/],
    [{ containerPath: "relative" }, /not an absolute path/],
    [{ hostPath: "/a\nb" }, /control character/],
  ] as const)("refuses %o", (overrides, message) => {
    const attempt = (): unknown => validateMount(criMount(overrides));
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  test("takes a recursively read-only mount that is read-only and private", () => {
    expect(() => validateMount(criMount({ recursiveReadOnly: true, readonly: true }))).not.toThrow();
  });
});

describe("propagation", () => {
  const table = [
    { mountPoint: "/" },
    { mountPoint: "/shared", shared: 5 },
    { mountPoint: "/slave", master: 5 },
    { mountPoint: "/shared/private" },
    { mountPoint: "/stacked" },
    { mountPoint: "/stacked", shared: 6 },
  ];
  const check =
    (sourcePath: string, propagation: "PROPAGATION_HOST_TO_CONTAINER" | "PROPAGATION_BIDIRECTIONAL") => () =>
      checkMountPropagation([{ mount: { propagation }, sourcePath }], table);

  test("needs a shared mount to share both ways", () => {
    expect(check("/shared/x", "PROPAGATION_BIDIRECTIONAL")).not.toThrow();
    expect(check("/stacked", "PROPAGATION_BIDIRECTIONAL")).not.toThrow();
    for (const source of ["/slave/x", "/shared/private/x", "/sharedness", "/x", "/"]) {
      expect(check(source, "PROPAGATION_BIDIRECTIONAL")).toThrow(/not a shared mount/);
    }
  });

  test("needs a shared or slave mount to receive", () => {
    for (const source of ["/slave", "/shared"]) {
      expect(check(source, "PROPAGATION_HOST_TO_CONTAINER")).not.toThrow();
    }
    expect(check("/slavery", "PROPAGATION_HOST_TO_CONTAINER")).toThrow(/"\/slavery" is mounted on "\/"/);
  });

  test("asks nothing of a private mount, and refuses others without a table", () => {
    const mount = { propagation: "PROPAGATION_PRIVATE" } as const;
    expect(() => checkMountPropagation([{ mount, sourcePath: "/x" }], [])).not.toThrow();
    const shared = { propagation: "PROPAGATION_BIDIRECTIONAL" } as const;
    expect(() => checkMountPropagation([{ mount: shared, sourcePath: "/x" }], [])).toThrow(/no known mount/);
  });

  test("opens the rootfs as far as its widest mount", () => {
    const wide = { propagation: "PROPAGATION_BIDIRECTIONAL" } as const;
    const slave = { propagation: "PROPAGATION_HOST_TO_CONTAINER" } as const;
    expect(rootfsPropagation([{ propagation: "PROPAGATION_PRIVATE" }])).toBeUndefined();
    expect(rootfsPropagation([slave])).toBe("rslave");
    expect(rootfsPropagation([slave, wide])).toBe("rshared");
  });
});
