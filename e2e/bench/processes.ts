import { readdir, readFile, readlink, writeFile } from "node:fs/promises";
import type { Contestant } from "./contestant.ts";

/** Clock ticks a second of the times in /proc; fixed at 100 on every Linux that Node runs on. */
const ticksPerSecond = 100;

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly commandLine: string;
  /** User and system time of it and of its reaped children. */
  readonly cpuSeconds: number;
}

/** The processes that a server needs to manage its containers. */
interface Managers {
  /** The daemon and the processes below it; empty when its pid is not known. */
  readonly daemon: readonly Process[];
  /** conmon, shims: they name a pod or container in their arguments. */
  readonly monitors: readonly Process[];
}

/** Finds a server's daemon and monitors in the machine's process list; processes inside containers do not count. */
export async function findManagers(contestant: Contestant): Promise<Managers> {
  const ids = [...contestant.client.seenIds];
  const processes = await readProcesses();
  const daemon = processes.filter(({ pid }) => pid === contestant.pid);
  for (const { pid } of daemon) daemon.push(...processes.filter(({ parent }) => parent === pid)); // grows while it goes
  const known = new Set(daemon.map(({ pid }) => pid));
  const monitors = processes.filter(
    ({ pid, commandLine }) => !known.has(pid) && ids.some((id) => commandLine.includes(id)),
  );
  return { daemon, monitors };
}

async function readProcesses(): Promise<Process[]> {
  const own = await readlink("/proc/self/ns/pid");
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/u.test(name)).map(Number);
  const found = await Promise.all(pids.map((pid) => readProcess(pid, own).catch(() => undefined))); // may have ended
  return found.filter((process) => process !== undefined);
}

async function readProcess(pid: number, pidNamespace: string): Promise<Process | undefined> {
  if ((await readlink(`/proc/${pid}/ns/pid`)) !== pidNamespace) return undefined;
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  // After the command, which may itself hold blanks and brackets, comes field 3.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  const commandLine = (await readFile(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ");
  return { pid, parent: Number(fields[1]), commandLine, cpuSeconds: ticks / ticksPerSecond };
}

/** Proportional set size of processes that live, in MiB: shared pages are divided among those who share them. */
export async function sumPssMiB(processes: readonly Process[]): Promise<number> {
  let sumKiB = 0;
  for (const { pid } of processes) {
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "utf8").catch(() => ""); // ended meanwhile
    sumKiB += Number(/^Pss:\s+(\d+) kB$/mu.exec(rollup)?.[1] ?? 0);
  }
  return sumKiB / 1024;
}

/** CPU time that the daemon and its children have used so far. */
export async function readDaemonCpuSeconds(contestant: Contestant): Promise<number> {
  const { daemon } = await findManagers(contestant);
  return daemon.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
}

/** Watches a daemon's resident set from now on; the answer is by how many MB it has been above what it is now. */
export async function watchResidentSet({ pid }: Contestant): Promise<() => Promise<number | undefined>> {
  if (pid === undefined) return async () => undefined;
  await writeFile(`/proc/${pid}/clear_refs`, "5"); // proc(5): the peak is what is resident now
  const before = await readPeakMb(pid);
  return async () => (await readPeakMb(pid)) - before;
}

async function readPeakMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(/^VmHWM:\s+(\d+) kB$/mu.exec(status)?.[1]) * 1024) / 1e6;
}
