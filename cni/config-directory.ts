import { constants } from "node:fs";
import { open, readdir } from "node:fs/promises";
import { extname, join } from "node:path";
import { errnoOf } from "../cri-api/index.ts";
import {
  parseLegacyConfig,
  parseNetworkList,
  parsePluginConfig,
  type NetworkList,
  type PluginConfig,
} from "./network-list.ts";
import { toOneLine } from "./text.ts";

export interface LoadedList {
  readonly file: string;
  readonly list: NetworkList;
}

/** A file of the configuration directory that cannot be used, and why. */
export interface SkippedFile {
  readonly file: string;
  readonly reason: string;
}

export interface ConfigDirectory {
  /** In the order in which they are to be tried. */
  readonly lists: readonly LoadedList[];
  readonly skipped: readonly SkippedFile[];
}

const maxFileBytes = 1024 * 1024;

/** Reads every network of the directory; an absent directory is an empty one. */
export async function loadConfigDirectory(confDir: string): Promise<ConfigDirectory> {
  const lists: LoadedList[] = [];
  const skipped: SkippedFile[] = [];
  for (const name of await listFiles(confDir, [".conflist", ".conf", ".json"])) {
    try {
      const list = await loadFile(confDir, name);
      if (list !== undefined) lists.push({ file: name, list });
    } catch (thrown) {
      skipped.push({ file: name, reason: thrown instanceof Error ? toOneLine(thrown.message, 300) : "unreadable" });
    }
  }
  return { lists, skipped };
}

async function loadFile(confDir: string, name: string): Promise<NetworkList | undefined> {
  const bytes = await readConfigFile(join(confDir, name));
  if (bytes === undefined) return undefined; // removed since the listing
  if (extname(name) !== ".conflist") return parseLegacyConfig(bytes);
  const list = parseNetworkList(bytes);
  const plugins = [...list.plugins];
  if (!list.loadOnlyInlinedPlugins) plugins.push(...(await loadFolder(join(confDir, list.name))));
  if (plugins.length === 0)
    throw new Error(`plugins: none in the file and none in its folder ${JSON.stringify(list.name)}`);
  return { ...list, plugins };
}

/** Spec 1.1.0: what installers drop into the folder named after the network runs after the inlined plugins. */
async function loadFolder(folder: string): Promise<readonly PluginConfig[]> {
  const plugins: PluginConfig[] = [];
  for (const name of await listFiles(folder, [".conf"])) {
    const bytes = await readConfigFile(join(folder, name));
    if (bytes !== undefined) plugins.push(inFile(name, () => parsePluginConfig(bytes)));
  }
  return plugins;
}

function inFile<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    throw new Error(`${name}: ${thrown instanceof Error ? thrown.message : "unreadable"}`, { cause: thrown });
  }
}

async function listFiles(directory: string, extensions: readonly string[]): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    const files = entries.filter((entry) => !entry.isDirectory() && extensions.includes(extname(entry.name)));
    return files.map((entry) => entry.name).sort();
  } catch (thrown) {
    if (["ENOENT", "ENOTDIR"].includes(errnoOf(thrown) ?? "")) return [];
    throw thrown;
  }
}

/** Follows symlinks (mounted ConfigMaps are made of them); O_NONBLOCK so that a FIFO cannot hold us. */
async function readConfigFile(path: string): Promise<Buffer | undefined> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (thrown) {
    if (errnoOf(thrown) === "ENOENT") return undefined;
    throw new Error(`cannot be opened (${errnoOf(thrown) ?? "unknown error"})`, { cause: thrown });
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error("not a regular file");
    if (stats.size > maxFileBytes) throw new Error(`larger than ${String(maxFileBytes)} bytes`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}
