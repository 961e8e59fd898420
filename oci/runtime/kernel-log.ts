import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { ProcessIdentity } from "../../native/index.ts";
import { codeOf } from "./cgroup-processes.ts";

const kernelLog = "/dev/kmsg";
/** Larger than any record; one read returns one. */
const recordBytes = 8192;
/** More than the largest buffer that distributions configure holds; a flood ends here. */
const maxRecords = 100_000;
const clockTicksPerSecond = 100;

/** A process that the kernel killed for want of memory. */
export interface OomKill {
  /** Its name, of at most 15 bytes, which is its own choice. */
  readonly task: string;
  /** Whose memory was used up; undefined where the log does not say. */
  readonly limit?: "container" | "pod" | "node";
}

/**
 * What the kernel has written down last of killing a process of the container for want of memory. It cannot be
 * overtaken: systemd removes the scope of a container, and its counts with it, when the last process ends.
 *
 * @returns Undefined also where the log cannot be read.
 */
export async function findOomKill(id: string, init: ProcessIdentity): Promise<OomKill | undefined> {
  const kills = (await readRecords()).map((record) => parseOomKill(record, id, init));
  return kills.findLast((kill) => kill !== undefined);
}

/**
 * `6,1234,667900000,-;oom-kill:…,task_memcg=/a.slice/berth-ID.scope/container,task=sh,pid=7,uid=0`: the third number is
 * the time since boot in microseconds, the first is below 8 for what the kernel itself says. Of many kills at once only
 * the line with the pid is written.
 */
export function parseOomKill(record: string, id: string, init: ProcessIdentity): OomKill | undefined {
  const [, microseconds, text] = /^[0-7],\d+,(\d+),[^;]*;(.*)/.exec(record) ?? [];
  if (microseconds === undefined || text === undefined) return undefined;
  if (text.startsWith("oom-kill:")) return parseCgroupKill(text, id);
  const [, killed, name = ""] = /out of memory: Killed process (\d+) \((.*?)\) /i.exec(text) ?? [];
  const isSincePidIsInits =
    Number(microseconds) / 1_000_000 >= Math.floor(Number(init.startTime) / clockTicksPerSecond);
  return Number(killed) === init.pid && isSincePidIsInits ? { task: name } : undefined;
}

function parseCgroupKill(text: string, id: string): OomKill | undefined {
  const [, limited = "", cgroup = "", task = ""] =
    /^oom-kill:(.*),task_memcg=([^,]*),task=(.*),pid=\d+,/.exec(text) ?? [];
  if (!isOf(cgroup, id)) return undefined;
  const limitedGroup = /,oom_memcg=([^,]*)/.exec(limited)?.[1];
  if (limitedGroup === undefined) return { task, limit: "node" };
  return { task, limit: isOf(limitedGroup, id) ? "container" : "pod" };
}

/** Whether a memory cgroup is a container's, or below it. */
function isOf(cgroup: string, id: string): boolean {
  return cgroup.split("/").some((name) => name === id || name.replace(/\.scope$/, "").endsWith(`-${id}`));
}

async function readRecords(): Promise<readonly string[]> {
  const records: string[] = [];
  try {
    await using log = await open(kernelLog, constants.O_RDONLY | constants.O_NONBLOCK);
    const buffer = Buffer.alloc(recordBytes);
    while (records.length < maxRecords) {
      const { bytesRead } = await log.read(buffer, 0, recordBytes, null).catch(passOver);
      if (bytesRead > 0) records.push(buffer.toString("latin1", 0, bytesRead));
    }
  } catch {
    return records; // EAGAIN is its end; without the device or the right to read it there is nothing to know
  }
  return records;
}

/** EPIPE: records were overwritten before they were read; reading goes on with the oldest that are there. */
function passOver(thrown: unknown): { readonly bytesRead: number } {
  if (codeOf(thrown) === "EPIPE") return { bytesRead: 0 };
  throw thrown;
}
