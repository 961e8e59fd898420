import { mkdir, readFile, rmdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { waitUntil } from "./wait-until.ts";

/** Where the cgroups are that keep processes from dying, as the kernel does while they wait for a device. */
export const freezerRoot = "/sys/fs/cgroup/freezer";

export async function setFreezer(group: string, state: "FROZEN" | "THAWED"): Promise<void> {
  const file = path.join(group, "freezer.state");
  await writeFile(file, state);
  await waitUntil(state, async () => ((await readFile(file, "utf8")).trim() === state ? true : undefined));
}

/** Keeps these processes from dying, and from all else, until the answer is disposed. */
export async function freeze(pids: readonly number[]): Promise<AsyncDisposable> {
  const group = path.join(freezerRoot, `berth-frozen-${process.pid}`);
  await mkdir(group);
  for (const pid of pids) await writeFile(path.join(group, "cgroup.procs"), String(pid));
  await setFreezer(group, "FROZEN");
  return {
    async [Symbol.asyncDispose]() {
      await setFreezer(group, "THAWED");
      const left = (await readFile(path.join(group, "cgroup.procs"), "utf8")).split("\n").filter(Boolean);
      for (const pid of left) await writeFile(path.join(freezerRoot, "cgroup.procs"), pid).catch(() => undefined);
      await waitUntil("the freezer to be empty", () => rmdir(group).then(() => true));
    },
  };
}
