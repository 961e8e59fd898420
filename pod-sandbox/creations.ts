import { Code, CriError } from "../cri-api/index.ts";
import type { Call } from "../cri-api/index.ts";
import { untilAborted } from "../native/index.ts";

/**
 * Runs creates detached from their callers. A caller that gives up stops waiting and nothing else; the work goes on
 * under a deadline of its own, and a retry with the same name waits for the very same work.
 */
export interface Creations {
  /** @throws the work's error, or the caller's abort reason when it gives up first. */
  join(call: Call, key: CreationKey, work: (signal: AbortSignal) => Promise<string>): Promise<string>;
  /** Aborts the creates of a group and waits until they have undone themselves. */
  abandon(group: string, reason: string): Promise<void>;
  abandonAll(reason: string): Promise<void>;
}

export interface CreationKey {
  readonly name: string;
  /** Creates that must end together: the containers of one pod. */
  readonly group: string;
}

interface Creation {
  readonly group: string;
  readonly controller: AbortController;
  readonly outcome: Promise<string>;
}

/** @param deadlineMs Longest time one create may take, whoever waits for it. */
export function createCreations(deadlineMs: number): Creations {
  const running = new Map<string, Creation>();

  function begin(key: CreationKey, work: (signal: AbortSignal) => Promise<string>): Creation {
    const controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, AbortSignal.timeout(deadlineMs)]);
    const outcome = work(signal).finally(() => running.delete(key.name));
    outcome.catch(() => undefined); // a caller that left must not make this an unhandled rejection
    const creation = { group: key.group, controller, outcome };
    running.set(key.name, creation);
    return creation;
  }

  async function abandon(chosen: readonly Creation[], reason: string): Promise<void> {
    for (const creation of chosen) creation.controller.abort(new CriError(Code.Aborted, reason));
    await Promise.allSettled(chosen.map((creation) => creation.outcome));
  }

  return {
    async join(call, key, work) {
      call.signal.throwIfAborted();
      const creation = running.get(key.name) ?? begin(key, work);
      return await untilAborted(creation.outcome, call.signal);
    },
    abandon: (group, reason) =>
      abandon(
        running
          .values()
          .filter((creation) => creation.group === group)
          .toArray(),
        reason,
      ),
    abandonAll: (reason) => abandon([...running.values()], reason),
  };
}
