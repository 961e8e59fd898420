import { setTimeout as sleep } from "node:timers/promises";
import { isAlive, openProcess, type ProcessIdentity } from "./identity.ts";

const sigkill = 9;

/** Signals exactly the process that was looked at, never one that took its number since. */
export async function signalProcess(identity: ProcessIdentity, signal: number): Promise<void> {
  const process = openProcess(identity);
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
  findVictims: () => Promise<readonly ProcessIdentity[]>,
  deadlineMs: number,
): Promise<boolean> {
  const deadline = performance.now() + deadlineMs;
  let dying: readonly ProcessIdentity[] = [];
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const victims = await findVictims();
    dying = [...victims, ...dying.filter((one) => isAlive(one) && !victims.some(({ pid }) => pid === one.pid))];
    if (dying.length === 0) return true;
    if (performance.now() > deadline) return false;
    for (const victim of victims) await signalProcess(victim, sigkill);
    await sleep(pauseMs);
  }
}
