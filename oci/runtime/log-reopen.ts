import { lstat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Monitor } from "./monitor.ts";

/** A monitor that lives opens a file within milliseconds, unless its disk is stuck. */
const reopenDeadlineMs = 5_000;

interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

export async function reopenLog(
  monitor: Pick<Monitor, "holdsFile" | "reopenLog">,
  signal: AbortSignal,
  bundle: string,
  logPath: string,
): Promise<void> {
  if (logPath === "") return;
  signal.throwIfAborted();
  const before = await identityOf(logPath);
  // conmon replaces a file that was not moved away, and its lines would be lost
  if (before && (await monitor.holdsFile(bundle, before))) return;
  await monitor.reopenLog(bundle);
  const deadline = performance.now() + reopenDeadlineMs;
  for (let pauseMs = 1; performance.now() < deadline; pauseMs = Math.min(2 * pauseMs, 50)) {
    const now = await identityOf(logPath);
    if (now && now.ino !== before?.ino) return;
    await sleep(pauseMs, undefined, { signal });
  }
  throw new CriError(Code.Internal, `the monitor opened no new log file within ${reopenDeadlineMs / 1000} s`);
}

async function identityOf(path: string): Promise<FileIdentity | undefined> {
  try {
    const { dev, ino } = await lstat(path, { bigint: true });
    return { dev, ino };
  } catch {
    return undefined;
  }
}
