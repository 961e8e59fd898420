import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { cgroupPathsOfSpec, endCgroups, killCgroup, processesIn } from "./cgroup-processes.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";

/** A directory that looks like a cgroup with one below it. */
async function cgroup(pids: readonly number[], pidsBelow: readonly number[] = []): Promise<CgroupPaths> {
  const directory = await mkdtemp(join(tmpdir(), "berth-cgroup-"));
  onTestFinished(async () => await rm(directory, { recursive: true }));
  await mkdir(join(directory, "inner"));
  await writeFile(join(directory, "cgroup.procs"), pids.map((pid) => `${pid}\n`).join(""));
  await writeFile(join(directory, "inner", "cgroup.procs"), pidsBelow.map((pid) => `${pid}\n`).join(""));
  return { unified: undefined, controllers: { pids: directory } };
}

test("nothing is killed where the daemon itself would be", async () => {
  await expect(killCgroup(await cgroup([process.pid]))).rejects.toThrow("holds processes of the host");
  await expect(killCgroup(await cgroup([], [process.pid]))).rejects.toThrow("holds processes of the host");
  await expect(killCgroup(await cgroup([1]))).rejects.toThrow("holds processes of the host");
});

test("processes below the container's cgroup are its own, and those that are gone are not counted", async () => {
  const found = await processesIn(await cgroup([2 ** 22 + 7], [process.ppid]));
  expect(found.map(({ pid }) => pid)).toEqual([process.ppid]);
});

test("a cgroup that is gone holds nobody", async () => {
  const gone = { unified: undefined, controllers: { pids: join(tmpdir(), "berth-no-such-cgroup") } };
  expect(await processesIn(gone)).toEqual([]);
  await killCgroup(gone);
  await endCgroups(gone, "berth-no-such-cgroup", true);
  expect(await processesIn({ unified: undefined, controllers: {} })).toEqual([]);
});

test("where a runtime does not know a hierarchy, its container is beside others, and all are left alone", async () => {
  const { controllers } = await cgroup([process.pid]);
  const beside = { unified: undefined, controllers: { misc: controllers["pids"] ?? "" } };
  await endCgroups(beside, "c1", true);
  expect(await readdir(beside.controllers.misc)).toContain("inner");
});

test("a container's place is known before it is there, if it is its own", () => {
  const mounts = {
    unified: { mountPoint: "/sys/fs/cgroup/unified", root: "/" },
    controllers: { memory: { mountPoint: "/sys/fs/cgroup/memory", root: "/" } },
  };
  expect(cgroupPathsOfSpec("/pod/berth-c1", "c1", mounts)).toEqual({
    unified: "/sys/fs/cgroup/unified/pod/berth-c1",
    controllers: { memory: "/sys/fs/cgroup/memory/pod/berth-c1" },
  });
  expect(cgroupPathsOfSpec("kubepods-burstable.slice:berth:c1", "c1", mounts)).toEqual({
    unified: "/sys/fs/cgroup/unified/kubepods.slice/kubepods-burstable.slice/berth-c1.scope",
    controllers: { memory: "/sys/fs/cgroup/memory/kubepods.slice/kubepods-burstable.slice/berth-c1.scope" },
  });
  const scopes = [
    "a.slice:berth:c2",
    "a.slice:berth:",
    ":berth:c1",
    "a.slice::c1",
    "a--b.slice:berth:c1",
    "a.slice:b:c:c1",
  ];
  for (const foreign of ["", "/", "/pod", "pod/c1", "/c1/..", "/../c1", "../a.slice:berth:c1", ...scopes]) {
    expect(cgroupPathsOfSpec(foreign, "c1", mounts)).toBeUndefined();
  }
});
