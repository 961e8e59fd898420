import { readdir, readFile } from "node:fs/promises";
import { runCommand, tryCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import type { Workspace } from "../harness/workspace.ts";

/**
 * Takes away what is left of a workspace whose servers no longer answer: processes that live in its cgroups or name
 * its folder, namespaces and mounts below it. After a run that went well there is nothing to do.
 */
export async function sweep(workspace: Workspace): Promise<void> {
  await waitUntil("the last processes of the workspace to end", async () => {
    const pids = await findProcesses(workspace);
    for (const pid of pids) kill(pid);
    return pids.length === 0 ? true : undefined;
  });
  for (const mountPoint of await findMounts(workspace)) await tryCommand(["umount", "--lazy", mountPoint]);
  const names = (await readdir("/run/netns").catch(() => [])).filter((name) => name.startsWith(netnsPrefix(workspace)));
  for (const name of names) await runCommand(["ip", "netns", "delete", name]);
  await removeCgroups(workspace);
}

/** What the names of the floor's network namespaces begin with: they lie in a folder that is the whole machine's. */
export function netnsPrefix(workspace: Workspace): string {
  return workspace.cgroupParent.slice(1);
}

async function findProcesses(workspace: Workspace): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name)).map(Number);
  const isLeft = async (pid: number): Promise<boolean> => {
    const read = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
    if (/\) [ZX]/u.test(await read("stat"))) return false;
    if ((await read("cgroup")).includes(`${workspace.cgroupParent}/`)) return true;
    return (await read("cmdline")).includes(`${workspace.directory}/`);
  };
  const found: number[] = [];
  for (const pid of pids) if (pid !== process.pid && (await isLeft(pid))) found.push(pid);
  return found;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it ended by itself
  }
}

/** Those mounted last come first. */
async function findMounts(workspace: Workspace): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8");
  const mountPoints = table.split("\n").map((line) => line.split(" ")[4] ?? "");
  return mountPoints.filter((mountPoint) => mountPoint.startsWith(`${workspace.directory}/`)).toReversed();
}

/** The cgroups of containers that nobody deleted; the workspace itself removes only their parent. */
async function removeCgroups(workspace: Workspace): Promise<void> {
  const parents = (await readdir("/sys/fs/cgroup")).map((name) => `/sys/fs/cgroup/${name}${workspace.cgroupParent}`);
  await tryCommand([
    "find",
    ...parents,
    `/sys/fs/cgroup${workspace.cgroupParent}`,
    "-depth",
    "-mindepth",
    "1",
    "-type",
    "d",
    "-delete",
  ]);
}
