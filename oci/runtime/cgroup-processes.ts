import { readdir, rmdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import { killUntilGone, readFileBounded, readFilesBounded } from "../../native/index.ts";
import { expandSlice } from "./cgroup-paths.ts";
import type { CgroupMounts, CgroupPaths } from "./cgroup-paths.ts";
import { isLive, readStat } from "./process-tree.ts";
import type { ProcessStat } from "./process-tree.ts";

const maxProcsBytes = 4 * 1024 * 1024;
const killDeadlineMs = 10_000;
/** The threads of a process that counts as dead leave its cgroup by and by. */
const leaveMs = 2_000;
/** v1 hierarchies in the order in which they are asked who is in the container. */
const membershipControllers = ["pids", "freezer", "memory", "cpu", "name=systemd"] as const;

/** Everybody in the container's cgroup and below it. Empty when it is gone. */
export async function processesIn(paths: CgroupPaths): Promise<readonly ProcessStat[]> {
  const directory = membershipDirectory(paths);
  return directory === undefined ? [] : await processesBelow([directory]);
}

async function processesBelow(directories: readonly string[]): Promise<readonly ProcessStat[]> {
  const pids = [...new Set((await Promise.all(directories.map(pidsBelow))).flat())];
  if (pids.includes(process.pid) || pids.includes(1)) {
    throw new CriError(Code.Internal, "the container's cgroup holds processes of the host");
  }
  return (await Promise.all(pids.map(readStat))).filter(isLive);
}

/** Kills everybody in the container's cgroup; returns when they are gone. */
export async function killCgroup(paths: CgroupPaths): Promise<void> {
  await killAll(paths, () => processesIn(paths));
}

async function killAll(paths: CgroupPaths, findVictims: () => Promise<readonly ProcessStat[]>): Promise<void> {
  if ((await findVictims()).length === 0) return;
  const { freezer } = paths.controllers;
  if (freezer !== undefined) await writeIfThere(join(freezer, "freezer.state"), "THAWED"); // frozen, they could not die
  if (isUnifiedOnly(paths) && paths.unified !== undefined) {
    await writeIfThere(join(paths.unified, "cgroup.kill"), "1"); // atomic where the kernel has it; the loop sees the end
  }
  const isGone = await killUntilGone(findVictims, killDeadlineMs);
  if (!isGone) throw new CriError(Code.Internal, "processes of the container survive SIGKILL");
}

/**
 * Ends what a runtime left behind in any hierarchy: one that was killed as it made or removed the container's cgroups
 * has them in some. Directories that do not bear the container's id are left alone.
 *
 * @param removes Whether the directories go, too. A scope is systemd's to remove.
 */
export async function endCgroups(paths: CgroupPaths, id: string, removes: boolean): Promise<void> {
  const directories = await remaining(ownDirectories(paths, id));
  if (directories.length === 0) return;
  await killAll(paths, () => processesBelow(directories));
  if (removes) await Promise.all(directories.map(removeCgroupTree));
}

/** In a hierarchy that a runtime does not know (`misc`, to runc), its containers are where the runtime is itself. */
function ownDirectories({ unified, controllers }: CgroupPaths, id: string): readonly string[] {
  const directories = new Set([...Object.values(controllers), ...(unified === undefined ? [] : [unified])]);
  return [...directories].filter((directory) => directory.includes(id));
}

/** Those of the cgroups that are there. */
async function remaining(directories: readonly string[]): Promise<readonly string[]> {
  const members = await readFilesBounded(directories.map(membersFile), maxProcsBytes);
  return directories.filter((_, index) => members[index] !== undefined);
}

/** Where a container's cgroups will be, known before there is one. Undefined unless the path ends in its id. */
export function cgroupPathsOfSpec(cgroupsPath: string, id: string, mounts: CgroupMounts): CgroupPaths | undefined {
  const path = cgroupsPath.includes(":") ? scopePath(cgroupsPath, id) : cgroupsPath;
  if (!path?.startsWith("/") || path.split("/").includes("..")) return undefined;
  if (path === cgroupsPath && !basename(path).endsWith(id)) return undefined;
  const controllers: Record<string, string> = {};
  for (const [name, { mountPoint }] of Object.entries(mounts.controllers)) controllers[name] = join(mountPoint, path);
  return { unified: mounts.unified && join(mounts.unified.mountPoint, path), controllers };
}

/** `a-b.slice:prefix:id` is the scope `prefix-id` in that slice. */
function scopePath(cgroupsPath: string, id: string): string | undefined {
  const [slice = "", prefix = "", name, ...more] = cgroupsPath.split(":");
  if (name !== id || more.length > 0 || !/^[a-z]+$/.test(prefix)) return undefined;
  const parent = expandSlice(slice);
  return parent && `${parent}/${prefix}-${name}.scope`;
}

function isUnifiedOnly(paths: CgroupPaths): boolean {
  return membershipControllers.every((name) => paths.controllers[name] === undefined);
}

function membershipDirectory(paths: CgroupPaths): string | undefined {
  const v1 = membershipControllers.map((name) => paths.controllers[name]).find((path) => path !== undefined);
  return v1 ?? paths.unified;
}

function membersFile(directory: string): string {
  return join(directory, "cgroup.procs");
}

async function pidsBelow(directory: string): Promise<readonly number[]> {
  const text = await readFileBounded(membersFile(directory), maxProcsBytes).catch(() => undefined);
  if (!text) return [];
  const own = text.toString("latin1").split("\n").filter(Boolean).map(Number);
  const below = await Promise.all((await childDirectories(directory)).map(pidsBelow));
  return [...own, ...below.flat()];
}

async function removeCgroupTree(directory: string): Promise<void> {
  for (const child of await childDirectories(directory)) await removeCgroupTree(child);
  const deadline = performance.now() + leaveMs;
  for (let pauseMs = 1; (await removeCgroup(directory)) === "busy"; pauseMs *= 2) {
    if (performance.now() > deadline) throw new CriError(Code.Internal, "the container's cgroup is busy");
    await sleep(pauseMs);
  }
}

async function removeCgroup(directory: string): Promise<"busy" | "gone"> {
  try {
    await rmdir(directory);
  } catch (thrown) {
    if (codeOf(thrown) === "EBUSY") return "busy";
    if (codeOf(thrown) !== "ENOENT") throw thrown;
  }
  return "gone";
}

async function childDirectories(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map((entry) => join(directory, entry.name));
  } catch {
    return [];
  }
}

async function writeIfThere(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text, { flag: "r+" });
  } catch (thrown) {
    if (!["ENOENT", "ENODEV"].includes(codeOf(thrown) ?? "")) throw thrown;
  }
}

export function codeOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
}
