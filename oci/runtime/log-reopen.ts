import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import { resolveForeignPaths } from "../../native/index.ts";
import type { Monitor } from "./monitor.ts";

/** A monitor that lives opens a file within milliseconds, unless its disk is stuck. */
const reopenDeadlineMs = 5_000;

/** @throws {CriError} `DeadlineExceeded` for a log on a file system that hangs. */
export async function reopenLog(
  monitor: Pick<Monitor, "holdsFile" | "reopenLog">,
  signal: AbortSignal,
  bundle: string,
  logPath: string,
): Promise<void> {
  if (logPath === "") return;
  const before = await identityOf(signal, logPath);
  // conmon replaces a file that was not moved away, and its lines would be lost
  if (before !== undefined && (await monitor.holdsFile(signal, bundle, before))) return;
  await monitor.reopenLog(bundle);
  const deadline = performance.now() + reopenDeadlineMs;
  for (let pauseMs = 1; performance.now() < deadline; pauseMs = Math.min(2 * pauseMs, 50)) {
    const now = await identityOf(signal, logPath);
    if (now !== undefined && now !== before) return;
    await sleep(pauseMs, undefined, { signal });
  }
  throw new CriError(Code.Internal, `the monitor opened no new log file within ${reopenDeadlineMs / 1000} s`);
}

async function identityOf(signal: AbortSignal, logPath: string): Promise<string | undefined> {
  const options = { signal, deadlineMs: reopenDeadlineMs };
  const [found] = await resolveForeignPaths([{ path: logPath, want: "look" }], options);
  if (found && !("error" in found)) return found.identity;
  if (found?.error !== "ETIMEDOUT") return undefined;
  throw new CriError(Code.DeadlineExceeded, `log path "${logPath}" is on a file system that does not answer`);
}
