/** Something whose incoming bytes can be held back at their source. */
export interface Flow {
  pause(): void;
  resume(): void;
}

export interface Valve {
  /** Adds to (or, negative, takes from) one of the gauges. */
  add(gauge: number, bytes: number): void;
  readonly isShut: boolean;
}

/** What a waiting piece costs besides its bytes: a peer may send them one by one. */
const pieceCostBytes = 256;

/** What pieces cost while they wait. */
export function costOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length + pieceCostBytes, 0);
}

/** Stops a flow while any of its gauges is over its limit, until all are under half of theirs. */
export function createValve(flow: Flow, limits: readonly number[]): Valve {
  const levels = limits.map(() => 0);
  let isShut = false;
  return {
    get isShut() {
      return isShut;
    },
    add(gauge, bytes) {
      levels[gauge] = (levels[gauge] ?? 0) + bytes;
      if (!isShut && limits.some((limit, index) => (levels[index] ?? 0) > limit)) {
        isShut = true;
        flow.pause();
      } else if (isShut && limits.every((limit, index) => (levels[index] ?? 0) <= limit / 2)) {
        isShut = false;
        flow.resume();
      }
    },
  };
}
