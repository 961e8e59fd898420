/** Runs work on one key at a time, first come first served. Not reentrant. */
export interface KeyedLock {
  /** Rejects with `signal.reason` if the signal aborts while waiting; work that has begun is not interrupted. */
  run<T>(key: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T>;
}

/** Lets so many works run at a time; the others wait, first come first served. */
export interface Semaphore {
  /** Rejects with `signal.reason` if the signal aborts while waiting; work that has begun is not interrupted. */
  run<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T>;
  /** Takes a slot, and answers the function that gives it back (once; further calls do nothing). */
  acquire(signal: AbortSignal | undefined): Promise<() => void>;
}

/** Makes a semaphore of `slots` slots. */
export function createSemaphore(slots: number): Semaphore {
  const waiting = new Set<() => void>();
  let free = slots;

  function release(): void {
    const [next] = waiting;
    if (next) {
      waiting.delete(next);
      next();
    } else {
      free += 1;
    }
  }
  function releaseOnce(): () => void {
    let isHeld = true;
    return () => {
      if (isHeld) release();
      isHeld = false;
    };
  }
  async function acquire(signal: AbortSignal | undefined): Promise<() => void> {
    signal?.throwIfAborted();
    if (free > 0) free -= 1;
    else await waitForTurn(waiting, signal);
    return releaseOnce();
  }
  return {
    acquire,
    async run(signal, work) {
      const giveBack = await acquire(signal);
      try {
        return await work();
      } finally {
        giveBack();
      }
    },
  };
}

function waitForTurn(waiting: Set<() => void>, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => {
    waiting.delete(onTurn);
    reject(signal?.reason as Error);
  };
  const onTurn = (): void => {
    signal?.removeEventListener("abort", onAbort);
    resolve();
  };
  waiting.add(onTurn);
  signal?.addEventListener("abort", onAbort, { once: true });
  return promise;
}

/** Makes a lock whose keys cost nothing while nobody holds them. */
export function createKeyedLock(): KeyedLock {
  const locks = new Map<string, { readonly lock: Semaphore; users: number }>();
  return {
    async run(key, signal, work) {
      const entry = locks.get(key) ?? { lock: createSemaphore(1), users: 0 };
      locks.set(key, entry);
      entry.users += 1;
      try {
        return await entry.lock.run(signal, work);
      } finally {
        entry.users -= 1;
        if (entry.users === 0) locks.delete(key);
      }
    },
  };
}
