import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  findProcesses,
  isAlive,
  killUntilGone,
  openProcess,
  processIdentity,
  readFileBounded,
  removeFiles,
  within,
} from "../../native/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import { processesIn } from "./cgroup-processes.ts";
import { descendantsOf, readStat } from "./process-tree.ts";
import type { ProcessStat } from "./process-tree.ts";
import type { RunningExec } from "./exec.ts";
import type { RuntimeHost } from "./host.ts";
import { execDirectory } from "./state.ts";
import type { ContainerState } from "./state.ts";

const sigstop = 19;
const sigkill = 9;
const sigcont = 18;
const reapMs = 1_000;
const killDeadlineMs = 5_000;
const maxCommandLineBytes = 128 * 1024;

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
  const killAll = hunt({ pid: child.pid, hasEnded: () => exec.hasEnded() }, container);
  await killAll();
  if (await exec.wasStarted()) {
    // The helper follows the command and reaps it. Killed now, it would leave a zombie in the container, which could not
    // end before somebody else has reaped that.
    child.kill(sigcont);
    await Promise.race([child.exited, sleep(reapMs)]);
  }
  child.killGroup(sigkill);
  child.kill(sigkill);
  await within(killDeadlineMs, child.exited);
  await killAll();
}

/** The helper that follows a command. */
interface Followed {
  readonly pid: number;
  readonly hasEnded: () => boolean;
}

/** Kills what is below the helper and what strayed from there; each call goes on with what the ones before have learnt. */
function hunt({ pid, hasEnded }: Followed, container: Pick<ContainerState, "init" | "cgroups">): () => Promise<void> {
  const families = new Set<number>([pid]);
  return async () => {
    const others = new Set((await Promise.all([process.pid, container.init.pid].map(readStat))).flatMap(familiesOf));
    await killUntilGone(async () => {
      const tree = hasEnded() ? [] : await descendantsOf(pid);
      for (const family of tree.flatMap(familiesOf)) if (!others.has(family)) families.add(family);
      return [...tree, ...(await strayed(container.cgroups, families, tree))];
    }, killDeadlineMs);
  };
}

/**
 * Ends the commands that the daemon before had run and did not live to see the end of: those who asked for them have
 * heard an error, and nobody would hold them to their time. What they have left of files goes as well.
 */
export async function endStrayExecs(host: Pick<RuntimeHost, "config" | "states" | "log">): Promise<void> {
  const directory = execDirectory(host.config);
  const names = await readdir(directory);
  if (names.length === 0) return; // each has files here, for as long as it lives
  const strays = await findStrays(directory);
  await Promise.all(strays.map((stray) => endStray(host, stray)));
  if (strays.length > 0) host.log.warn({ count: strays.length }, "ended commands that the daemon before had run");
  await removeFiles(names.map((name) => join(directory, name)));
}

interface Stray extends ProcessIdentity {
  readonly containerId: string;
}

function findStrays(directory: string): Promise<readonly Stray[]> {
  return findProcesses(async (pid) => {
    const identity = await processIdentity(pid);
    const commandLine = await readFileBounded(`/proc/${pid}/cmdline`, maxCommandLineBytes).catch(() => undefined);
    const [, command, pidFile, ...others] = commandLine?.toString("utf8").split("\0").slice(0, -1) ?? [];
    if (!identity || command !== "follow" || !pidFile?.startsWith(`${directory}/`)) return undefined;
    return { ...identity, containerId: others.at(-1) ?? "" };
  });
}

async function endStray({ states, log }: Pick<RuntimeHost, "states" | "log">, stray: Stray): Promise<void> {
  const { containerId } = stray;
  try {
    using helper = openProcess(stray);
    if (!helper) return;
    const container = await states.load(containerId);
    if (container) await hunt({ pid: stray.pid, hasEnded: () => !isAlive(stray) }, container)();
    else await killUntilGone(() => descendantsOf(stray.pid), killDeadlineMs);
    await Promise.race([helper.exited, sleep(reapMs)]); // it reaps the command, and ends
    helper.signal(sigkill);
  } catch (thrown) {
    log.warn({ containerId, err: String(thrown) }, "a command that the daemon before had run is not ended");
  }
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
