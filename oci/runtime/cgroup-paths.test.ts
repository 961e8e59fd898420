import { expect, test } from "vitest";
import { cgroupPathsOfParent, parseCgroupPaths } from "./cgroup-paths.ts";
import type { CgroupMounts } from "./cgroup-paths.ts";

function at(mountPoint: string, root = "/") {
  return { mountPoint, root };
}

const unifiedOnly: CgroupMounts = { unified: at("/sys/fs/cgroup"), controllers: {} };
const hybrid: CgroupMounts = {
  unified: at("/sys/fs/cgroup/unified"),
  controllers: {
    memory: at("/sys/fs/cgroup/memory"),
    cpu: at("/sys/fs/cgroup/cpu,cpuacct"),
    cpuacct: at("/sys/fs/cgroup/cpu,cpuacct"),
    "name=systemd": at("/sys/fs/cgroup/systemd"),
  },
};

test("v2 has one directory", () => {
  expect(parseCgroupPaths("0::/kubepods/pod1/c1\n", unifiedOnly)).toEqual({
    unified: "/sys/fs/cgroup/kubepods/pod1/c1",
    controllers: {},
  });
});

test("crun's level below a systemd scope is not the container's", () => {
  expect(parseCgroupPaths("0::/a.slice/berth-c1.scope/container\n", unifiedOnly).unified).toBe(
    "/sys/fs/cgroup/a.slice/berth-c1.scope",
  );
});

test("v1 has a directory for each controller, also of hierarchies that hold several", () => {
  const text = "5:cpu,cpuacct:/pod/c1\n4:memory:/other/c1\n3:net_cls:/pod/c1\n1:name=systemd:/pod/c1\n0::/pod/c1\n";
  expect(parseCgroupPaths(text, hybrid)).toEqual({
    unified: "/sys/fs/cgroup/unified/pod/c1",
    controllers: {
      cpu: "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
      cpuacct: "/sys/fs/cgroup/cpu,cpuacct/pod/c1",
      memory: "/sys/fs/cgroup/memory/other/c1",
      "name=systemd": "/sys/fs/cgroup/systemd/pod/c1",
    },
  });
});

test("a mount of a part of a hierarchy is that part", () => {
  const mounts = { unified: undefined, controllers: { memory: at("/sys/fs/cgroup/memory", "/docker/abc") } };
  expect(parseCgroupPaths("4:memory:/docker/abc/pod/c1\n", mounts).controllers["memory"]).toBe(
    "/sys/fs/cgroup/memory/pod/c1",
  );
});

test("lines that are none are left out", () => {
  expect(parseCgroupPaths("\nx\n1:memory\n:::\n2:memory:relative\n", hybrid)).toEqual({
    unified: undefined,
    controllers: {},
  });
});

test("a pod's cgroup is found by its parent in every hierarchy", () => {
  const parent = cgroupPathsOfParent("/kubepods/burstable/pod1/", "cgroupfs", hybrid);
  expect(parent?.unified).toBe("/sys/fs/cgroup/unified/kubepods/burstable/pod1");
  expect(parent?.controllers["memory"]).toBe("/sys/fs/cgroup/memory/kubepods/burstable/pod1");
});

test("a slice lies in the slices that its name tells", () => {
  const expected = "/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice";
  for (const parent of ["kubepods-besteffort-pod1_2.slice", "/kubepods.slice/kubepods-besteffort-pod1_2.slice"])
    expect(cgroupPathsOfParent(parent, "systemd", unifiedOnly)?.unified).toBe(expected);
});

test("no parent, a root, and one that climbs are no cgroup of a pod", () => {
  for (const parent of ["", "/", "//", "/a/../.."]) {
    expect(cgroupPathsOfParent(parent, "cgroupfs", hybrid)).toBeUndefined();
    expect(cgroupPathsOfParent(parent, "systemd", hybrid)).toBeUndefined();
  }
  expect(cgroupPathsOfParent("-.slice", "systemd", hybrid)).toBeUndefined();
});
