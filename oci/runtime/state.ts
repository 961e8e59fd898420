import { readdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { readFilesBounded, refuseNewerSchema, removeFiles, writeFileAtomically } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import type { RuntimeConfig } from "./types.ts";

/** What is known of a container once it is created; enough to signal, exec and account without asking the runtime. */
export interface ContainerState {
  readonly bundle: string;
  readonly init: ProcessIdentity;
  readonly monitor: ProcessIdentity | undefined;
  readonly cgroups: CgroupPaths;
  /** Nothing but the opening of its FIFO makes this container start: it has no hooks to run then. */
  readonly opensGate: boolean;
}

const schemaVersion = 1;
const maxStateBytes = 64 * 1024;

const identitySchema = v.object({ pid: v.number(), startTime: v.string() });
const stateSchema = v.object({
  schemaVersion: v.literal(schemaVersion),
  bundle: v.string(),
  opensGate: v.boolean(),
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

/** An id becomes a file name and an argument of programs. @throws {CriError} `InvalidArgument`. */
export function assertId(id: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/.test(id)) return;
  throw new CriError(Code.InvalidArgument, `"${id.slice(0, 140)}" cannot be the id of a container`);
}

/** The containers of one handler: files that the next daemon finds, and their contents at hand. */
export interface StateStore {
  save(id: string, state: ContainerState): Promise<void>;
  /** Undefined when the container was never created, is deleted, or its file could not be read. */
  load(id: string): Promise<ContainerState | undefined>;
  /** With the exit file, whole or half: nothing is left that tells of the id. */
  remove(id: string): Promise<void>;
}

/**
 * Reads what the daemon before has left, and removes what it was killed over while it wrote.
 *
 * @throws {NewerSchemaError} where a newer Berth has left containers: this one would take them for none.
 */
export async function openStateStore(config: RuntimeConfig): Promise<StateStore> {
  const directory = stateDirectory(config);
  const fileOf = (id: string): string => join(directory, `${id}.json`);
  const known = new Map<string, ContainerState>();
  const names = await readdir(directory);
  const ids = names.filter((name) => /^[^.].*\.json$/.test(name)).map((name) => name.slice(0, -".json".length));
  for (const [index, text] of (await readFilesBounded(ids.map(fileOf), maxStateBytes)).entries()) {
    const state = parseState(text);
    if (state) known.set(ids[index] ?? "", state);
  }
  await removeFiles(names.filter((name) => name.endsWith(".tmp")).map((name) => join(directory, name)));
  return {
    async save(id, state) {
      known.set(id, state);
      await writeFileAtomically(fileOf(id), JSON.stringify({ schemaVersion, ...state }), { survives: "kill" });
    },
    async load(id) {
      assertId(id);
      return known.get(id);
    },
    async remove(id) {
      known.delete(id);
      await removeFiles([fileOf(id), ...(await exitFilesOf(config, id))]);
    },
  };
}

/** With what a monitor leaves that is killed over it: it writes `ID.XXXXXX` (g_file_set_contents), then renames that. */
async function exitFilesOf(config: RuntimeConfig, id: string): Promise<readonly string[]> {
  const names = await readdir(exitDirectory(config));
  const isOfId = (name: string): boolean =>
    name.startsWith(id) && /^(?:\.[A-Za-z0-9]{6})?$/.test(name.slice(id.length));
  return names.filter(isOfId).map((name) => join(exitDirectory(config), name));
}

function parseState(text: Buffer | undefined): ContainerState | undefined {
  if (!text) return undefined;
  const json = parseJson(text.toString("utf8"));
  refuseNewerSchema(json, schemaVersion);
  const parsed = v.safeParse(stateSchema, json);
  if (!parsed.success) return undefined;
  const { schemaVersion: _, monitor, cgroups, ...others } = parsed.output;
  return { ...others, monitor, cgroups: { unified: cgroups.unified, controllers: cgroups.controllers } };
}

/** Undefined where the text is no JSON: what that means is the reader's to say. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
