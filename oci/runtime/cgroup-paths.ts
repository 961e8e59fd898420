import { basename, dirname, join, normalize } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import { readFileBounded, readMountTable } from "../../native/index.ts";

/** Absolute directories of a process's cgroups. `unified` is its cgroup v2 directory where that hierarchy is mounted. */
export interface CgroupPaths {
  readonly unified: string | undefined;
  /** By controller name, v1 hierarchies only: `memory`, `cpu`, `cpuacct`, `pids`, `freezer`, `name=systemd` ... */
  readonly controllers: Readonly<Record<string, string>>;
}

/** Where the hierarchies are mounted: read once, as mounts of cgroup hierarchies do not move under a running daemon. */
export interface CgroupMounts {
  readonly unified: CgroupMount | undefined;
  readonly controllers: Readonly<Record<string, CgroupMount>>;
}

interface CgroupMount {
  readonly mountPoint: string;
  /** The cgroup that is mounted there; not "/" in a container of its own. */
  readonly root: string;
}

const maxCgroupFileBytes = 64 * 1024;
const knownControllers = new Set([
  "cpu",
  "cpuacct",
  "cpuset",
  "memory",
  "pids",
  "devices",
  "freezer",
  "blkio",
  "hugetlb",
  "net_cls",
  "net_prio",
  "perf_event",
  "rdma",
  "misc",
]);

export async function readCgroupMounts(): Promise<CgroupMounts> {
  let unified: CgroupMount | undefined;
  const controllers: Record<string, CgroupMount> = {};
  for (const { fsType, mountPoint, root, superOptions } of await readMountTable()) {
    if (fsType === "cgroup2") unified ??= { mountPoint, root };
    if (fsType !== "cgroup") continue;
    for (const option of superOptions) {
      if (knownControllers.has(option) || option.startsWith("name=")) controllers[option] ??= { mountPoint, root };
    }
  }
  return { unified, controllers };
}

/**
 * The cgroups of a process as they are now; they stay while it lives, so one look is enough.
 *
 * @param mounts What `readCgroupMounts` found; looked up anew without it.
 * @throws {CriError} `Internal` when the process is gone.
 */
export async function readCgroupPaths(pid: number, mounts?: CgroupMounts): Promise<CgroupPaths> {
  const text = await readFileBounded(`/proc/${pid}/cgroup`, maxCgroupFileBytes).catch(() => undefined); // ESRCH: it ends
  if (!text) throw new CriError(Code.Internal, `process ${pid} is gone`);
  return parseCgroupPaths(text.toString("utf8"), mounts ?? (await readCgroupMounts()));
}

/** Lines of `/proc/<pid>/cgroup`: `4:cpu,cpuacct:/path`, `0::/path` for v2. */
export function parseCgroupPaths(text: string, mounts: CgroupMounts): CgroupPaths {
  let unified: string | undefined;
  const controllers: Record<string, string> = {};
  for (const line of text.split("\n")) {
    const [, names, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    if (names === "" && mounts.unified) unified = below(mounts.unified, ofContainer(path));
    if (names === "") continue;
    for (const name of names.split(",")) {
      const mount = mounts.controllers[name];
      if (mount) controllers[name] = below(mount, path);
    }
  }
  return { unified, controllers };
}

/** crun puts the processes of a systemd scope one level below it; the limits and the counts are the scope's. */
function ofContainer(path: string): string {
  return path.endsWith(".scope/container") ? dirname(path) : path;
}

function below(mount: CgroupMount, path: string): string {
  const isInside = mount.root !== "/" && (path === mount.root || path.startsWith(`${mount.root}/`));
  return join(mount.mountPoint, isInside ? path.slice(mount.root.length) : path);
}

/**
 * Where a pod's cgroup lies, by the cgroup parent that kubelet made for it. Undefined for none and for a root.
 *
 * @param parent A path for cgroupfs; for systemd a slice, with or without those it is in before it.
 */
export function cgroupPathsOfParent(
  parent: string,
  driver: "cgroupfs" | "systemd",
  mounts: CgroupMounts,
): CgroupPaths | undefined {
  const path = driver === "systemd" ? expandSlice(basename(parent)) : normalize(`/${parent}`).replace(/\/$/, "");
  if (path === undefined || path === "" || parent.split("/").includes("..")) return undefined;
  const controllers: Record<string, string> = {};
  for (const [name, { mountPoint }] of Object.entries(mounts.controllers)) controllers[name] = join(mountPoint, path);
  return { unified: mounts.unified && join(mounts.unified.mountPoint, path), controllers };
}

/** systemd puts `a-b.slice` into `a.slice`. */
export function expandSlice(name: string): string | undefined {
  const stem = /^([^/]+)\.slice$/.exec(name)?.[1];
  if (stem === undefined || stem.split("-").includes("")) return undefined;
  const words = stem.split("-");
  return `/${words.map((_, index) => `${words.slice(0, index + 1).join("-")}.slice`).join("/")}`;
}
