import type { Child } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { processesIn } from "./cgroup-processes.ts";
import { descendantsOf, killUntilGone, readStat } from "./process-tree.ts";
import type { ProcessStat } from "./process-tree.ts";
import type { ContainerState } from "./state.ts";

const sigstop = 19;
const sigkill = 9;
const killDeadlineMs = 5_000;

/**
 * Ends an exec with everything it started: the tree below the runtime, and who left the tree but stayed in its process
 * groups or sessions (a child whose parent has ended is init's child). A process that made a session of its own and then
 * lost its parent before now cannot be told from the container's own; it stays, as under every other runtime.
 */
export async function killExec(runtime: Child, container: ContainerState): Promise<void> {
  runtime.kill(sigstop); // it may be about to fork the command
  const others = new Set((await Promise.all([process.pid, container.init.pid].map(readStat))).flatMap(familiesOf));
  const families = new Set<number>([runtime.pid]);
  await killUntilGone(async () => {
    const tree = await descendantsOf(runtime.pid);
    for (const family of tree.flatMap(familiesOf)) if (!others.has(family)) families.add(family);
    return [...tree, ...(await strayed(container.cgroups, families, tree))];
  }, killDeadlineMs);
  runtime.killGroup(sigkill);
  runtime.kill(sigkill);
  await runtime.exited;
}

/** crun starts a command in the session of a process that is gone by then, so no living leader tells it. */
function familiesOf(stat: ProcessStat | undefined): readonly number[] {
  return stat ? [stat.pid, stat.processGroup, stat.session] : [];
}

async function strayed(
  cgroups: CgroupPaths,
  families: ReadonlySet<number>,
  tree: readonly ProcessStat[],
): Promise<readonly ProcessStat[]> {
  const known = new Set(tree.map(({ pid }) => pid));
  const members = await processesIn(cgroups);
  return members.filter(
    ({ pid, processGroup, session }) => !known.has(pid) && (families.has(processGroup) || families.has(session)),
  );
}
