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

/**
 * Whether the kernel has written down that it killed a process of the container for want of memory. The last to ask:
 * systemd removes the scope of a container, and its counts with it, when the last process ends.
 *
 * @returns False also where the log cannot be read.
 */
export async function kernelLogTellsOom(id: string, init: ProcessIdentity): Promise<boolean> {
  return (await readRecords()).some((record) => tellsOom(record, id, init));
}

/**
 * `6,1234,667900000,-;oom-kill:…,task_memcg=/a.slice/berth-ID.scope/container,task=sh,pid=7,uid=0`: the third number is
 * the time since boot in microseconds, the first is below 8 for what the kernel itself says. Of many kills at once only
 * the line with the pid is written.
 */
export function tellsOom(record: string, id: string, init: ProcessIdentity): boolean {
  const [, microseconds, text] = /^[0-7],\d+,(\d+),[^;]*;(.*)/.exec(record) ?? [];
  if (microseconds === undefined || text === undefined) return false;
  const cgroup = /^oom-kill:.*,task_memcg=([^,]*)/.exec(text)?.[1];
  if (cgroup !== undefined)
    return cgroup.split("/").some((name) => name === id || name.replace(/\.scope$/, "").endsWith(`-${id}`));
  const killed = /out of memory: Killed process (\d+) /i.exec(text)?.[1];
  const isSincePidIsInits =
    Number(microseconds) / 1_000_000 >= Math.floor(Number(init.startTime) / clockTicksPerSecond);
  return Number(killed) === init.pid && isSincePidIsInits;
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
