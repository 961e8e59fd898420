import { setTimeout as sleep } from "node:timers/promises";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { processesIn } from "./cgroup-processes.ts";
import { descendantsOf, killUntilGone, readStat } from "./process-tree.ts";
import type { ProcessStat } from "./process-tree.ts";
import type { RunningExec } from "./exec.ts";
import type { ContainerState } from "./state.ts";

const sigstop = 19;
const sigkill = 9;
const sigcont = 18;
const reapMs = 1_000;
const killDeadlineMs = 5_000;

/**
 * Ends an exec with everything it started: the tree below the helper, which orphans stay in as long as the container has
 * the host's PID namespace; and where its own init takes them, who stayed in the tree's process groups or sessions. A
 * process that made a session of its own in there and then lost its parent before now cannot be told from the
 * container's own; it stays, as under every other runtime. An exec that has ended is left alone.
 */
export async function killExec(exec: RunningExec): Promise<void> {
  const { child, container } = exec;
  if (exec.hasEnded()) return;
  child.killGroup(sigstop); // the helper or the runtime may be about to fork
  const killAll = hunt(exec, container);
  await killAll();
  if (await exec.wasStarted()) {
    // The helper follows the command and reaps it. Killed now, it would leave a zombie in the container, which could not
    // end before somebody else has reaped that.
    child.kill(sigcont);
    await Promise.race([child.exited, sleep(reapMs)]);
  }
  child.killGroup(sigkill);
  child.kill(sigkill);
  await child.exited;
  await killAll();
}

/** Kills what is below the helper and what strayed from there; each call goes on with what the ones before have learnt. */
function hunt(exec: RunningExec, container: ContainerState): () => Promise<void> {
  const { pid } = exec.child;
  const families = new Set<number>([pid]);
  return async () => {
    const others = new Set((await Promise.all([process.pid, container.init.pid].map(readStat))).flatMap(familiesOf));
    await killUntilGone(async () => {
      const tree = exec.hasEnded() ? [] : await descendantsOf(pid);
      for (const family of tree.flatMap(familiesOf)) if (!others.has(family)) families.add(family);
      return [...tree, ...(await strayed(container.cgroups, families, tree))];
    }, killDeadlineMs);
  };
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
