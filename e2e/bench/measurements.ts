import { quantile } from "../harness/quantile.ts";

/** What was measured of one server (or of the floor): values by step, in the order they were taken. */
export interface Recorder {
  /** Runs a step and records how many milliseconds it took; a step that throws is not recorded. */
  time<T>(step: string, work: () => Promise<T>): Promise<T>;
  add(step: string, value: number): void;
  values(step: string): readonly number[];
}

export function createRecorder(): Recorder {
  const taken = new Map<string, number[]>();
  const recorder: Recorder = {
    async time(step, work) {
      const startedAt = performance.now();
      const result = await work();
      recorder.add(step, performance.now() - startedAt);
      return result;
    },
    add(step, value) {
      const values = taken.get(step) ?? [];
      values.push(value);
      taken.set(step, values);
    },
    values: (step) => taken.get(step) ?? [],
  };
  return recorder;
}

/** Takes what is measured and forgets it: for rounds that only warm up. */
export function createForgetfulRecorder(): Recorder {
  return { time: (_step, work) => work(), add: () => {}, values: () => [] };
}

/** The sum of several steps in each round, for as many rounds as all of them have. */
export function sumSteps(recorder: Recorder, steps: readonly string[]): readonly number[] {
  const columns = steps.map((step) => recorder.values(step));
  const rounds = Math.min(...columns.map((column) => column.length));
  return Array.from({ length: rounds }, (_, round) => columns.reduce((sum, column) => sum + (column[round] ?? 0), 0));
}

export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly median: number;
  readonly p95: number;
}

/** The middle and the edges of some values; undefined when there are none. */
export function summarize(values: readonly number[]): Summary | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const [min] = sorted;
  if (min === undefined) return undefined;
  return { count: sorted.length, min, median: quantile(sorted, 0.5), p95: quantile(sorted, 0.95) };
}
