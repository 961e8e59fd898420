import { readFile } from "node:fs/promises";
import { availableParallelism, loadavg, release } from "node:os";
import { containerdName } from "./containerd.ts";
import type { Recorder, Summary } from "./measurements.ts";
import { summarize, sumSteps } from "./measurements.ts";
import { floorSteps, type Row, rows } from "./rows.ts";

/** All that a run found, as it is written to JSON. */
export interface BenchResult {
  readonly startedAt: string;
  readonly machine: {
    readonly kernel: string;
    readonly cpus: number;
    readonly cpuModel: string;
    /** Over one minute, before the run and after it: what else was going on. */
    readonly loadBefore: number;
    readonly loadAfter: number;
  };
  readonly options: Readonly<Record<string, unknown>>;
  readonly versions: Readonly<Record<string, string>>;
  readonly rows: readonly RowResult[];
  readonly floor: readonly { readonly step: string; readonly unit: "ms"; readonly summary: Summary | undefined }[];
}

interface RowResult {
  readonly title: string;
  readonly unit: Row["unit"];
  readonly floor: Summary | undefined;
  /** By contestant, with every value in the order it was taken. */
  readonly contestants: Readonly<Record<string, Summary & { readonly values: readonly number[] }>>;
  /** Berth's median to that of the one it is compared with. */
  readonly ratio: number | undefined;
  readonly mark: number | undefined;
  /** Of Berth's own median, in the row's unit. */
  readonly limit: number | undefined;
}

/** What was recorded of whom; the first name is Berth's, the second that of the one it is compared with. */
export interface Recordings {
  readonly contestants: ReadonlyMap<string, Recorder>;
  readonly floor: Recorder;
}

export function resultRows(recordings: Recordings): readonly RowResult[] {
  return rows.map((row) => resultRow(row, recordings)).filter(({ contestants }) => Object.keys(contestants).length > 0);
}

function resultRow(row: Row, recordings: Recordings): RowResult {
  const measured = [...recordings.contestants].flatMap(([name, recorder]) => {
    const values = sumSteps(recorder, row.steps);
    const summary = summarize(values);
    return summary === undefined ? [] : [[name, { ...summary, values }] as const];
  });
  const [berth, peer] = [...recordings.contestants.values()].map((recorder) =>
    summarize(sumSteps(recorder, row.steps)),
  );
  const isMarked = [...recordings.contestants.keys()][1] === containerdName; // the marks are about nobody else
  return {
    title: row.title,
    unit: row.unit,
    floor: row.floorSteps && summarize(sumSteps(recordings.floor, row.floorSteps)),
    contestants: Object.fromEntries(measured),
    ratio: berth && peer && berth.median / peer.median,
    mark: isMarked ? row.mark : undefined,
    limit: row.limit,
  };
}

export function floorRows(floor: Recorder): BenchResult["floor"] {
  return floorSteps.map((step) => ({ step, unit: "ms", summary: summarize(floor.values(step)) }));
}

/** What the numbers were taken on; call it twice, the load changes. */
export async function describeMachine(loadBefore: number): Promise<BenchResult["machine"]> {
  const cpuModel = /^model name\s*: (.*)$/mu.exec(await readFile("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown";
  return { kernel: release(), cpus: availableParallelism(), cpuModel, loadBefore, loadAfter: loadavg()[0] ?? 0 };
}

/** The result as a table for people: medians, 95th percentiles in brackets, the ratio and whether it holds the mark. */
export function renderTable(result: BenchResult): string {
  const names = [...new Set(result.rows.flatMap(({ contestants }) => Object.keys(contestants)))];
  const [first = "", second] = names;
  const header = [
    "median (p95)",
    "",
    "floor",
    ...names,
    second === undefined ? "" : `${first} / ${second}`,
    "mark",
    "",
  ];
  const lines = result.rows.map((row) => [
    row.title,
    row.unit,
    row.floor ? cell(row.floor) : "",
    ...names.map((name) => {
      const summary = row.contestants[name];
      return summary === undefined ? "" : cell(summary);
    }),
    row.ratio?.toFixed(2) ?? "",
    markOf(row),
    verdict(row, row.contestants[first]),
  ]);
  const floor = result.floor.flatMap(({ step, unit, summary }) =>
    summary === undefined ? [] : [[`floor: ${step}`, unit, cell(summary)]],
  );
  return alignColumns([header, ...lines, ...floor]);
}

function markOf({ mark, limit, unit }: RowResult): string {
  if (limit !== undefined) return `≤ ${limit} ${unit}`;
  return mark === undefined ? "" : `≤ ${mark.toFixed(2)}`;
}

function verdict({ ratio, mark, limit }: RowResult, berth: Summary | undefined): string {
  const [value, bound] = limit === undefined ? [ratio, mark] : [berth?.median, limit];
  if (value === undefined || bound === undefined) return "";
  return value <= bound ? "holds" : "MISSED";
}

function cell({ median, p95, count }: Summary): string {
  return count === 1 ? format(median) : `${format(median)} (${format(p95)})`;
}

function format(value: number): string {
  return value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0);
}

function alignColumns(table: readonly (readonly string[])[]): string {
  const widths = (table[0] ?? []).map((_, column) => Math.max(...table.map((line) => (line[column] ?? "").length)));
  return table
    .map((line) =>
      widths
        .map((width, column) =>
          column < 2 ? (line[column] ?? "").padEnd(width) : (line[column] ?? "").padStart(width),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
