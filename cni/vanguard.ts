import { createKeyedLock } from "../native/index.ts";

/** Longer than an ADD of plugins that get anywhere; one that hangs must not keep the node's other pods. */
const defaultPatienceMs = 2_000;

/**
 * Lets the first ADD of its kind go before the others: plugins then make what all pods share (bridge, firewall chains),
 * and do not all bear to make it beside each other. portmap's and firewall's second one fails with "File exists".
 */
export interface Vanguard {
  /** @param kind What needs the same things of the node: network and capabilities. */
  run<T>(kind: string, signal: AbortSignal, add: () => Promise<T>): Promise<T>;
}

export function createVanguard(patienceMs = defaultPatienceMs): Vanguard {
  const made = new Set<string>();
  const lock = createKeyedLock();

  return {
    async run(kind, signal, add) {
      const addAndNote = async () => {
        const result = await add();
        made.add(kind);
        return { result };
      };
      if (!made.has(kind)) {
        const patience = AbortSignal.timeout(patienceMs);
        const goFirst = async () => (made.has(kind) ? undefined : await addAndNote());
        const first = await orTired(patience, lock.run(kind, AbortSignal.any([signal, patience]), goFirst));
        if (first) return first.result;
      }
      return (await addAndNote()).result;
    },
  };
}

async function orTired<T>(patience: AbortSignal, waiting: Promise<T>): Promise<T | undefined> {
  try {
    return await waiting;
  } catch (thrown) {
    if (thrown === patience.reason) return undefined;
    throw thrown;
  }
}
