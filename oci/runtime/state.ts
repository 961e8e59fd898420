import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { readFileBounded, writeFileAtomically } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import type { RuntimeConfig } from "./types.ts";

/** What is known of a container once it is created; enough to signal, exec and account without asking the runtime. */
export interface ContainerState {
  readonly bundle: string;
  readonly init: ProcessIdentity;
  readonly monitor: ProcessIdentity | undefined;
  readonly cgroups: CgroupPaths;
}

const schemaVersion = 1;
const maxStateBytes = 64 * 1024;

const identitySchema = v.object({ pid: v.number(), startTime: v.string() });
const stateSchema = v.object({
  schemaVersion: v.literal(schemaVersion),
  bundle: v.string(),
  init: identitySchema,
  monitor: v.optional(identitySchema),
  cgroups: v.object({ unified: v.optional(v.string()), controllers: v.record(v.string(), v.string()) }),
});

export function exitDirectory(config: RuntimeConfig): string {
  return join(config.stateDir, "exits");
}

export function exitFile(config: RuntimeConfig, id: string): string {
  return join(exitDirectory(config), id);
}

/** Short-lived files of execs; only root may look into it, as command environments hold secrets. */
export function execDirectory(config: RuntimeConfig): string {
  return join(config.stateDir, "execs");
}

export function stateDirectory(config: RuntimeConfig): string {
  return join(config.stateDir, "containers");
}

function stateFile(config: RuntimeConfig, id: string): string {
  return join(stateDirectory(config), `${id}.json`);
}

/** An id becomes a file name and an argument of programs. @throws {CriError} `InvalidArgument`. */
export function assertId(id: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(id)) return;
  throw new CriError(Code.InvalidArgument, `"${id.slice(0, 140)}" cannot be the id of a container`);
}

export async function saveState(config: RuntimeConfig, id: string, state: ContainerState): Promise<void> {
  await writeFileAtomically(stateFile(config, id), JSON.stringify({ schemaVersion, ...state }), { mode: 0o600 });
}

/** Undefined when the container was never created, is deleted, or its state cannot be read. */
export async function loadState(config: RuntimeConfig, id: string): Promise<ContainerState | undefined> {
  assertId(id);
  const text = await readFileBounded(stateFile(config, id), maxStateBytes);
  if (!text) return undefined;
  const parsed = v.safeParse(stateSchema, parseJson(text.toString("utf8")));
  if (!parsed.success) return undefined;
  const { bundle, init, monitor, cgroups } = parsed.output;
  return { bundle, init, monitor, cgroups: { unified: cgroups.unified, controllers: cgroups.controllers } };
}

export async function removeState(config: RuntimeConfig, id: string): Promise<void> {
  await Promise.all([rm(stateFile(config, id), { force: true }), rm(exitFile(config, id), { force: true })]);
}

/** Undefined where the text is no JSON: what that means is the reader's to say. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
