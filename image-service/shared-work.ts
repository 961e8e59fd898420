import { untilAborted } from "../native/index.ts";

/** Work that several callers want at once is done once. */
export interface SharedWork<T> extends AsyncDisposable {
  /**
   * Joins the work under `key`, starting it if nobody has. A caller whose signal aborts leaves with the signal's
   * reason; when the last one has left, the work itself is aborted. A caller that comes while aborted work is still
   * cleaning up waits for that end and starts anew.
   */
  join(key: string, signal: AbortSignal, start: (signal: AbortSignal) => Promise<T>): Promise<T>;
}

interface Running<T> {
  readonly controller: AbortController;
  /** Settles when nothing of the work is left running. */
  readonly promise: Promise<T>;
  callers: number;
}

/** @param options.lastWaits The last caller to leave does so only when the aborted work has cleaned up. */
export function createSharedWork<T>(options: { readonly lastWaits?: boolean } = {}): SharedWork<T> {
  const works = new Map<string, Running<T>>();

  function begin(key: string, start: (signal: AbortSignal) => Promise<T>): Running<T> {
    const controller = new AbortController();
    const promise = start(controller.signal).finally(() => works.delete(key));
    promise.catch(() => undefined); // the callers hear of it; one that has left does not
    const work = { controller, promise, callers: 0 };
    works.set(key, work);
    return work;
  }

  return {
    async join(key, signal, start) {
      signal.throwIfAborted();
      let work = works.get(key);
      while (work?.controller.signal.aborted === true) {
        await untilAborted(Promise.allSettled([work.promise]), signal);
        work = works.get(key);
      }
      work ??= begin(key, start);
      work.callers += 1;
      try {
        return await untilAborted(work.promise, signal);
      } finally {
        work.callers -= 1;
        if (work.callers === 0 && works.get(key) === work) {
          work.controller.abort(signal.reason);
          if (options.lastWaits) await Promise.allSettled([work.promise]);
        }
      }
    },
    async [Symbol.asyncDispose]() {
      const running = [...works.values()];
      for (const { controller } of running) controller.abort();
      await Promise.allSettled(running.map(({ promise }) => promise));
    },
  };
}
