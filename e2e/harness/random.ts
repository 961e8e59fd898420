import { createRandom as createFractions } from "../../cri-api/testing.ts";

/** Chance that can be had again: the same seed gives the same choices. */
export interface Random {
  /** An integer from 0 to below `bound`. */
  below(bound: number): number;
  pick<T>(of: readonly [T, ...T[]]): T;
  /** `count` of them, in their order. */
  sample<T>(of: readonly T[], count: number): readonly T[];
}

/** Even enough to choose test cases by. */
export function createRandom(seed: number): Random {
  const next = createFractions(seed);
  const below = (bound: number): number => Math.floor(next() * bound);
  return {
    below,
    pick: (of) => of[below(of.length)] ?? of[0],
    sample(of, count) {
      const kept = of.map((item, index) => ({ item, index, order: next() })).sort((a, b) => a.order - b.order);
      return kept
        .slice(0, count)
        .sort((a, b) => a.index - b.index)
        .map(({ item }) => item);
    },
  };
}
