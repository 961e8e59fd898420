import { readFile } from "node:fs/promises";
import path from "node:path";

/** How the unit file of a working tree has the daemon run. */
export interface Deployment {
  /** Between Node and the program. */
  readonly nodeFlags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Reads the unit, so that what is measured is what operators get. */
export async function readDeployment(repository: string): Promise<Deployment> {
  return parseUnit(await readFile(path.join(repository, "deploy/berth.service"), "utf8"));
}

/** Takes `Environment=` with one or more plain assignments, and the flags of `ExecStart=NODE FLAGS MAIN serve`. */
export function parseUnit(unit: string): Deployment {
  const assignments = [...unit.matchAll(/^Environment=(.*)$/gmu)].flatMap(([, line = ""]) => line.trim().split(/\s+/u));
  const env = assignments.map((assignment) => assignment.replaceAll('"', "").split(/=(.*)/u, 2));
  const words = /^ExecStart=(.*)$/mu.exec(unit)?.[1]?.trim().split(/\s+/u) ?? [];
  const program = words.findIndex((word) => word.endsWith("main.ts"));
  if (program < 1) throw new Error("the unit has no ExecStart=NODE FLAGS MAIN serve");
  return { nodeFlags: words.slice(1, program), env: Object.fromEntries(env) as Record<string, string> };
}
