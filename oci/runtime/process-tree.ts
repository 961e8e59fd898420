import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { isAlive, openProcess } from "../../native/index.ts";

/** The fields of `/proc/<pid>/stat` that tell who belongs to whom. */
export interface ProcessStat {
  readonly pid: number;
  readonly state: string;
  readonly ppid: number;
  readonly processGroup: number;
  readonly session: number;
  readonly threads: number;
  readonly startTime: string;
}

/** The command name is in brackets and may hold brackets and blanks itself: fields count from the last bracket. */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf(" (");
  const close = text.lastIndexOf(") ");
  if (open < 1 || close < open) return undefined;
  const fields = text.slice(close + 2).split(" ");
  const [state, ppid, processGroup, session] = fields;
  const startTime = fields[19];
  if (state === undefined || session === undefined || startTime === undefined) return undefined;
  return {
    pid: Number(text.slice(0, open)),
    state,
    ppid: Number(ppid),
    processGroup: Number(processGroup),
    session: Number(session),
    threads: Number(fields[17]),
    startTime,
  };
}

/** Undefined when there is no such process. */
export async function readStat(pid: number): Promise<ProcessStat | undefined> {
  try {
    return parseStat(await readFile(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return undefined;
  }
}

/** The state is that of the first thread: others may live on, and hold what the process has, a cgroup say. */
export function isLive(stat: ProcessStat | undefined): stat is ProcessStat {
  return stat !== undefined && stat.state !== "X" && (stat.state !== "Z" || stat.threads > 1);
}

/** Living processes below `pid` at this moment, parents before children, `pid` itself not among them. */
export async function descendantsOf(pid: number): Promise<readonly ProcessStat[]> {
  const found: ProcessStat[] = [];
  const seen = new Set([pid]);
  for (let front: readonly number[] = [pid]; front.length > 0; ) {
    const next: number[] = [];
    for (const child of (await Promise.all(front.map(childrenOf))).flat()) {
      if (seen.has(child)) continue;
      seen.add(child);
      next.push(child);
    }
    found.push(...(await Promise.all(next.map(readStat))).filter(isLive));
    front = next;
  }
  return found;
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const threads = await listNumbers(`/proc/${pid}/task`);
  const lists = await Promise.all(threads.map((thread) => readText(`/proc/${pid}/task/${thread}/children`)));
  if (threads.length > 0 && lists.every((list) => list === undefined)) return await childrenByScan(pid);
  return lists.flatMap((list) => (list ?? "").split(" ").filter(Boolean).map(Number));
}

/** For kernels without CONFIG_PROC_CHILDREN. */
async function childrenByScan(pid: number): Promise<readonly number[]> {
  const children: number[] = [];
  for (const candidate of await listNumbers("/proc")) {
    if ((await readStat(candidate))?.ppid === pid) children.push(candidate);
  }
  return children;
}

async function listNumbers(directory: string): Promise<readonly number[]> {
  try {
    return (await readdir(directory)).filter((name) => /^\d+$/.test(name)).map(Number);
  } catch {
    return [];
  }
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "latin1");
  } catch {
    return undefined;
  }
}

/** Signals exactly the process that was looked at, never one that took its number since. */
export async function signalProcess(stat: ProcessStat, signal: number): Promise<void> {
  const process = openProcess({ pid: stat.pid, startTime: stat.startTime });
  if (!process) return;
  await using handle = process;
  handle.signal(signal);
}

/**
 * Kills what `findVictims` names until it names nobody, for new ones are forked while the old ones are killed. Who was
 * named once is waited for: one whose first thread has ended has lost what he is known by, and may still be at work.
 *
 * @returns Whether nobody is left; false after `deadlineMs`, when somebody sleeps uninterruptibly.
 */
export async function killUntilGone(
  findVictims: () => Promise<readonly ProcessStat[]>,
  deadlineMs: number,
): Promise<boolean> {
  const sigkill = 9;
  const deadline = performance.now() + deadlineMs;
  let dying: readonly ProcessStat[] = [];
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const victims = await findVictims();
    dying = [...victims, ...dying.filter((one) => isAlive(one) && !victims.some(({ pid }) => pid === one.pid))];
    if (dying.length === 0) return true;
    if (performance.now() > deadline) return false;
    for (const victim of victims) await signalProcess(victim, sigkill);
    await sleep(pauseMs);
  }
}
