import { readdir, readFile } from "node:fs/promises";
import { isEnded } from "../../native/index.ts";

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

export function isLive(stat: ProcessStat | undefined): stat is ProcessStat {
  return stat !== undefined && !isEnded(stat);
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
