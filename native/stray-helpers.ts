import { readdir, readlink } from "node:fs/promises";
import { helperPath } from "./binding.ts";
import { readFileBounded } from "./files.ts";
import { openProcess, processIdentity } from "./identity.ts";

/** Sub-commands that only their caller waits for; the others outlive a daemon on purpose, or end with it. */
const awaited: readonly string[] = ["resolve", "tail", "relabel", "umount", "pin", "user-namespace"];
const maxBytes = 64 * 1024;
const sigkill = 9;
const init = 1;

/**
 * Kills the helpers of a daemon that is gone: one that waits for a dead file system would wait for as long as that is
 * dead, and nobody for it.
 *
 * @returns how many there were.
 */
export async function endStrayHelpers(): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const ended = await Promise.all(pids.map(endIfStray));
  return ended.filter(Boolean).length;
}

async function endIfStray(pid: number): Promise<boolean> {
  if (!(await isHelper(pid))) return false; // nearly nobody is
  const identity = await processIdentity(pid); // before a closer look: the number may change hands
  if (!identity || !(await isHelper(pid)) || (await parentOf(pid)) !== init) return false;
  const [, command = ""] = (await read(pid, "cmdline")).split("\0");
  if (!awaited.includes(command)) return false;
  using process = openProcess(identity);
  process?.signal(sigkill);
  return process !== undefined;
}

/** Also one of before an upgrade, whose file is gone. */
async function isHelper(pid: number): Promise<boolean> {
  const program = await readlink(`/proc/${pid}/exe`).catch(() => "");
  return program.replace(/ \(deleted\)$/, "") === helperPath;
}

async function parentOf(pid: number): Promise<number> {
  return Number(/^PPid:\s+(\d+)$/m.exec(await read(pid, "status"))?.[1]);
}

async function read(pid: number, name: string): Promise<string> {
  const text = await readFileBounded(`/proc/${pid}/${name}`, maxBytes).catch(() => undefined);
  return text?.toString("latin1") ?? "";
}
