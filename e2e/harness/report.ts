import { inspect } from "node:util";

interface Outcome {
  readonly name: string;
  readonly result: "passed" | "failed" | "skipped";
  readonly detail: string;
}

/** Collects named outcomes and prints each as it comes; the last line that it prints is what `.ci/run` adds up. */
export interface Report {
  /** Runs a step; a throw is a failure and the report goes on. Returns whether it passed. */
  check(name: string, work: () => Promise<void>): Promise<boolean>;
  add(outcome: Outcome): void;
  /** Prints the sums; returns whether nothing failed. */
  conclude(title: string): boolean;
}

const marks = { passed: "✓", failed: "✗", skipped: "-" } as const;

export function createReport(): Report {
  const outcomes: Outcome[] = [];
  const count = (result: Outcome["result"]): number => outcomes.filter((outcome) => outcome.result === result).length;
  const report: Report = {
    async check(name, work) {
      const startedAt = performance.now();
      const took = (): string => `${(performance.now() - startedAt).toFixed(0)} ms`;
      try {
        await work();
        report.add({ name, result: "passed", detail: took() });
        return true;
      } catch (thrown) {
        const reason = thrown instanceof Error ? thrown.message : String(thrown);
        report.add({ name, result: "failed", detail: `${took()}: ${reason}` });
        return false;
      }
    },
    add(outcome) {
      outcomes.push(outcome);
      console.log(`${marks[outcome.result]} ${outcome.name} (${outcome.detail})`);
    },
    conclude(title) {
      for (const { name, detail } of outcomes.filter(({ result }) => result === "failed")) {
        console.log(`FAILED ${name}: ${detail}`);
      }
      console.log(`${title}: ${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped`);
      return count("failed") === 0;
    },
  };
  return report;
}

/** Runs a command's main function; what it throws is told whole, with what went wrong when it was cleared up. */
export function runMain(main: () => Promise<void>): void {
  main().catch((thrown: unknown) => {
    console.error(explain(thrown));
    process.exitCode = 1;
  });
}

function explain(thrown: unknown): string {
  if (!(thrown instanceof SuppressedError)) return inspect(thrown);
  return `${explain(thrown.suppressed)}\nand then, when clearing up: ${explain(thrown.error)}`;
}
