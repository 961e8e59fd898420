/**
 * Lets attachments' verbs run beside each other and a garbage collection alone, as the spec demands.
 *
 * A collection waits for a moment without verbs and does not hold new ones back meanwhile: one hung ADD would else
 * stop every pod of the node. It is the one that can be put off.
 */
export interface AttachmentGate {
  shared<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
  exclusive<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export function createAttachmentGate(): AttachmentGate {
  let sharedCount = 0;
  let isExclusive = false;
  let changed = Promise.withResolvers<void>();

  function announce(): void {
    changed.resolve();
    changed = Promise.withResolvers<void>();
  }

  /** `tryEnter` looks and takes in one turn of the event loop. */
  async function enter(tryEnter: () => boolean, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (tryEnter()) return;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // Others may get in between the announcement and this turn.
      do await Promise.race([changed.promise, aborted.promise]);
      while (!tryEnter());
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  function tryShared(): boolean {
    if (isExclusive) return false;
    sharedCount += 1;
    return true;
  }

  function tryExclusive(): boolean {
    if (isExclusive || sharedCount > 0) return false;
    isExclusive = true;
    return true;
  }

  return {
    async shared(signal, work) {
      await enter(tryShared, signal);
      try {
        return await work();
      } finally {
        sharedCount -= 1;
        if (sharedCount === 0) announce();
      }
    },
    async exclusive(signal, work) {
      await enter(tryExclusive, signal);
      try {
        return await work();
      } finally {
        isExclusive = false;
        announce();
      }
    },
  };
}
