import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Code, CriError, errnoOf } from "../cri-api/index.ts";
import { readFileBounded, removeFiles, writeFileAtomically } from "../native/index.ts";
import type { CniArgs } from "./attachment.ts";
import { type JsonObject, parseJsonObject } from "./json.ts";

/**
 * What is known of one attachment. An entry without `result` was written before its ADD: whatever became of that,
 * a DEL is owed. One without `config` is libcni's old form (a bare result) or cannot be read.
 */
export interface CacheEntry {
  readonly networkName: string;
  readonly containerId: string;
  readonly ifName: string;
  readonly netnsPath: string;
  /** The network list as JSON text. */
  readonly config?: string | undefined;
  readonly cniArgs?: CniArgs | undefined;
  readonly capabilityArgs?: JsonObject | undefined;
  readonly result?: JsonObject | undefined;
}

export interface ResultCache {
  write(entry: CacheEntry): Promise<void>;
  find(containerId: string, ifName: string): Promise<readonly CacheEntry[]>;
  /** All entries in libcni's present form. */
  list(): Promise<readonly CacheEntry[]>;
  /** Idempotent. */
  remove(entry: CacheEntry): Promise<void>;
  /** Removes what writes left that a crash cut short; only at start, when nothing is being written. */
  sweep(): Promise<void>;
}

const kind = "cniCacheV1";
const maxEntryBytes = 4 * 1024 * 1024;

const entrySchema = v.looseObject({
  kind: v.literal(kind),
  containerId: v.string(),
  config: v.pipe(v.string(), v.base64()),
  ifName: v.string(),
  networkName: v.string(),
  netns: v.nullish(v.string(), ""),
  cniArgs: v.nullish(v.array(v.tuple([v.string(), v.string()]))),
  capabilityArgs: v.nullish(v.record(v.string(), v.unknown())),
  result: v.nullish(v.record(v.string(), v.unknown())),
});

/**
 * libcni's cache of results, file for file, so that a node can change its runtime and no address is lost.
 *
 * @see https://github.com/containernetworking/cni/blob/v1.3.0/libcni/api.go (cachedInfo)
 */
export function createResultCache(cacheDir: string): ResultCache {
  const directory = join(cacheDir, "results");
  return {
    async write(entry) {
      await explained(entry, "recorded", () => replaceFile(directory, nameOf(entry), serialize(entry)));
    },
    async find(containerId, ifName) {
      const suffix = `-${containerId}-${ifName}`;
      const names = (await listNames(directory)).filter((name) => name.length > suffix.length && name.endsWith(suffix));
      const entries = await Promise.all(
        names.map(async (name) => {
          const known = { networkName: name.slice(0, -suffix.length), containerId, ifName, netnsPath: "" };
          return readEntry(directory, name, known);
        }),
      );
      // Of two containers "a" and "x-a" both files have the one's suffix; the content tells them apart.
      return entries.filter(isPresent).filter((entry) => entry.containerId === containerId && entry.ifName === ifName);
    },
    async list() {
      const names = await listNames(directory);
      const entries = await Promise.all(names.map((name) => readEntry(directory, name, undefined)));
      return entries.filter(isPresent);
    },
    remove: (entry) => explained(entry, "forgotten", () => removeFiles([join(directory, nameOf(entry))])),
    async sweep() {
      const names = (await listNames(directory)).filter((name) => /^\..+\.[0-9a-f]+\.tmp$/.test(name));
      await removeFiles(names.map((name) => join(directory, name)));
    },
  };
}

/** The system's own words would name a folder that is no business of the caller's. */
async function explained(entry: CacheEntry, done: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (thrown) {
    const reason = errnoOf(thrown) ?? "unknown error";
    const code = ["ENOSPC", "EDQUOT"].includes(reason) ? Code.ResourceExhausted : Code.Internal;
    const what = `network attachment of pod sandbox ${JSON.stringify(entry.containerId)}`;
    throw new CriError(code, `${what} cannot be ${done} (${reason})`, { cause: thrown });
  }
}

function serialize(entry: CacheEntry): string {
  return JSON.stringify({
    kind,
    containerId: entry.containerId,
    config: Buffer.from(entry.config ?? "").toString("base64"),
    ifName: entry.ifName,
    networkName: entry.networkName,
    netns: entry.netnsPath === "" ? undefined : entry.netnsPath,
    cniArgs: entry.cniArgs,
    capabilityArgs: entry.capabilityArgs,
    result: entry.result,
  });
}

function nameOf({ networkName, containerId, ifName }: CacheEntry): string {
  return `${networkName}-${containerId}-${ifName}`;
}

async function readEntry(
  directory: string,
  name: string,
  known: Pick<CacheEntry, "networkName" | "containerId" | "ifName" | "netnsPath"> | undefined,
): Promise<CacheEntry | undefined> {
  const bytes = await readFileBounded(join(directory, name), maxEntryBytes).catch(() => Buffer.alloc(0));
  if (bytes === undefined) return undefined;
  const fields = tryParse(bytes);
  const parsed = v.safeParse(entrySchema, fields);
  if (!parsed.success) {
    // Older than libcni 0.8, or damaged: the file's name says whose it is.
    const isBareResult = fields !== undefined && fields["kind"] === undefined;
    return known && { ...known, result: isBareResult ? fields : undefined };
  }
  const { containerId, ifName, networkName, netns, config, cniArgs, capabilityArgs, result } = parsed.output;
  const entry = {
    networkName,
    containerId,
    ifName,
    netnsPath: netns ?? "",
    config: Buffer.from(config, "base64").toString(),
    cniArgs: cniArgs ?? undefined,
    capabilityArgs: capabilityArgs ?? undefined,
    result: result ?? undefined,
  };
  // A file under another's name would have that other one deleted; half-written files have names of their own.
  return nameOf(entry) === name ? entry : undefined;
}

/**
 * Not forced to the disk, which would cost RunPodSandbox 6 ms: a power cut ends the attachments too, and DEL then works
 * with the present network, as after any loss of this cache.
 */
async function replaceFile(directory: string, name: string, text: string): Promise<void> {
  const replace = (): Promise<void> => writeFileAtomically(join(directory, name), text, { survives: "kill" });
  try {
    await replace();
  } catch (thrown) {
    if (errnoOf(thrown) !== "ENOENT") throw thrown;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await replace();
  }
}

function tryParse(bytes: Buffer): JsonObject | undefined {
  try {
    return parseJsonObject(bytes);
  } catch {
    return undefined;
  }
}

async function listNames(directory: string): Promise<readonly string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (thrown) {
    const reason = errnoOf(thrown) ?? "unknown error";
    if (reason === "ENOENT" || reason === "ENOTDIR") return [];
    throw new CriError(Code.Internal, `cache of network attachments cannot be read (${reason})`, { cause: thrown });
  }
}

function isPresent<T>(value: T | undefined): value is T {
  return value !== undefined;
}
