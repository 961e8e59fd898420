import type { Workspace } from "../harness/workspace.ts";
import type { Point } from "./interrupter.ts";
import type { ScenarioName } from "./scenarios.ts";

/** A point of a call, by what does not change from run to run: threads may take another order. */
export interface Fault extends Point {
  readonly scenario: ScenarioName;
  /** Which of the points that read alike, from 1. */
  readonly occurrence: number;
  readonly name: string;
}

/** A point's call with everything left out that is another in the next run: ids, pids, random names. */
export function labelOf({ directory, cgroupParent }: Workspace, call: string): string {
  return call
    .replaceAll(`${directory}/`, "")
    .replaceAll(cgroupParent, "/CGROUP")
    .replaceAll(/(\/layers\/[^/]+\/diff)\/.*/gu, "$1/…")
    .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,}/gu, "ID")
    .replaceAll(/\d+/gu, "N");
}

/** Of many that read alike the first, the middle and the last. */
const alike = (count: number): ReadonlySet<number> => new Set([1, Math.ceil(count / 2), count]);

/** The faults that a recorded call has room for. */
export function faultsOf(scenario: ScenarioName, points: readonly Point[]): readonly Fault[] {
  const counts = new Map<string, number>();
  const numbered = points.map((point) => {
    const key = `${point.when} ${point.call}`;
    const occurrence = (counts.get(key) ?? 0) + 1;
    counts.set(key, occurrence);
    return { ...point, scenario, occurrence, name: `${scenario}: ${key} #${occurrence}` };
  });
  // After a write to a pipe or socket is before what the other side makes of it: told apart by nothing here.
  const isTold = ({ when, call }: Point): boolean =>
    !call.includes("daemon.log") && (when === "before" || !/ (?:socket|pipe):/u.test(call));
  return numbered.filter(
    (fault) => isTold(fault) && alike(counts.get(`${fault.when} ${fault.call}`) ?? 1).has(fault.occurrence),
  );
}
