/** Chance that can be had again: the same seed gives the same choices. */
export interface Random {
  /** An integer from 0 to below `bound`. */
  below(bound: number): number;
  pick<T>(of: readonly [T, ...T[]]): T;
  /** `count` of them, in their order. */
  sample<T>(of: readonly T[], count: number): readonly T[];
}

/** Mulberry32: short, and even enough to choose test cases by. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d_2b_79_f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
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
