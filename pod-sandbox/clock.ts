/** Nanoseconds since the epoch, each answer later than the one before. */
export type Clock = () => bigint;

/**
 * Tells what was first of things that happen within a millisecond of the system's clock, or across its being set back:
 * kubelet drops a status that is not newer than the one it has.
 */
export function createClock(nowMs: () => number = Date.now): Clock {
  let lastNs = 0n;
  return () => {
    const nowNs = BigInt(nowMs()) * 1_000_000n;
    lastNs = nowNs > lastNs ? nowNs : lastNs + 1n;
    return lastNs;
  };
}

/**
 * Now, or just after the youngest of `elders` where the system's clock was set back: kubelet takes the youngest sandbox
 * of a pod, and the youngest container of a name, for the one that counts.
 */
export function createdAfter(elders: Iterable<{ readonly createdAtNs: bigint }>): bigint {
  let latestNs = nowNs();
  for (const { createdAtNs } of elders) if (createdAtNs >= latestNs) latestNs = createdAtNs + 1n;
  return latestNs;
}

/** Now, in nanoseconds since the epoch. */
export function nowNs(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}
