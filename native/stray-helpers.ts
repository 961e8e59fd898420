import { readlink } from "node:fs/promises";
import { helperPath } from "./binding.ts";
import { readFileBounded } from "./files.ts";
import { findProcesses, openProcess, type ProcessIdentity, processIdentity } from "./identity.ts";

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
  const ended = await findProcesses(endIfStray);
  return ended.length;
}

async function endIfStray(pid: number): Promise<ProcessIdentity | undefined> {
  if (!(await isHelper(pid))) return undefined; // nearly nobody is
  const identity = await processIdentity(pid); // before a closer look: the number may change hands
  if (!identity || !(await isHelper(pid)) || (await parentOf(pid)) !== init) return undefined;
  const [, command = ""] = (await read(pid, "cmdline")).split("\0");
  if (!awaited.includes(command)) return undefined;
  using process = openProcess(identity);
  process?.signal(sigkill);
  return process?.identity;
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
