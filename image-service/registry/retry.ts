import { setTimeout as sleep } from "node:timers/promises";

import { RegistryFailure } from "./failure.ts";
import type { RetryPolicy } from "./limits.ts";

/** How long to wait before attempt `attempt` (1 is the first retry): what the registry asks for, else doubling. */
export function retryDelayMs(policy: RetryPolicy, attempt: number, failure: RegistryFailure): number {
  const backoffMs = policy.baseDelayMs * 2 ** (attempt - 1);
  return Math.min(policy.maxDelayMs, failure.retryAfterMs ?? backoffMs);
}

/** Runs `work` until it succeeds, fails for good, or the attempts are used up. */
export async function retrying<T>(policy: RetryPolicy, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (thrown) {
      signal.throwIfAborted();
      if (!(thrown instanceof RegistryFailure) || !thrown.isRetriable || attempt >= policy.attempts) throw thrown;
      await sleep(retryDelayMs(policy, attempt, thrown), undefined, { signal });
    }
  }
}

/** Milliseconds of a Retry-After header: seconds or an HTTP date. */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const dateMs = Date.parse(header);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}
