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

  async function until(isOpen: () => boolean, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (isOpen()) return;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => {
      aborted.reject(signal.reason);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // Others may get in between the announcement and this turn.
      do await Promise.race([changed.promise, aborted.promise]);
      while (!isOpen());
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  return {
    async shared(signal, work) {
      await until(() => !isExclusive, signal);
      sharedCount += 1;
      try {
        return await work();
      } finally {
        sharedCount -= 1;
        if (sharedCount === 0) announce();
      }
    },
    async exclusive(signal, work) {
      await until(() => !isExclusive && sharedCount === 0, signal);
      isExclusive = true;
      try {
        return await work();
      } finally {
        isExclusive = false;
        announce();
      }
    },
  };
}
