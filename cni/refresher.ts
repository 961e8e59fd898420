/** Runs `work` at most once at a time; whoever asks while it runs gets the run after it. `work` must not reject. */
export interface Refresher {
  /** Resolves after a run that began after this call. */
  refresh(): Promise<void>;
  isRunning(): boolean;
  /** Resolves when nothing runs or is to run. */
  settle(): Promise<void>;
}

export function createRefresher(work: () => Promise<void>): Refresher {
  let running: Promise<void> | undefined;
  let next: Promise<void> | undefined;

  async function begin(): Promise<void> {
    running = work();
    await running;
    running = undefined;
  }

  async function follow(first: Promise<void>): Promise<void> {
    await first;
    next = undefined;
    await begin();
  }

  return {
    refresh() {
      if (running === undefined) return begin();
      next ??= follow(running);
      return next;
    },
    isRunning: () => running !== undefined,
    async settle() {
      while (running !== undefined || next !== undefined) await (next ?? running);
    },
  };
}
