import { constants, type BigIntStats } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";

export interface PluginBinary {
  readonly path: string;
  /** Differs whenever the file is another one or was written again. */
  readonly identity: string;
}

/** Looks along the folders for an executable file; the text says why there is none. */
export async function findPlugin(type: string, pluginDirs: readonly string[]): Promise<PluginBinary | string> {
  let isOnlyUnusable = false;
  for (const dir of pluginDirs) {
    const path = join(dir, type);
    const stats = await stat(path, { bigint: true }).catch(() => undefined);
    if (stats === undefined) continue;
    if (isExecutableFile(stats)) return { path, identity: identify(path, stats) };
    isOnlyUnusable = true;
  }
  const places = pluginDirs.map((dir) => JSON.stringify(dir)).join(", ");
  return isOnlyUnusable
    ? `cni plugin ${JSON.stringify(type)} is not an executable file in ${places}`
    : `cni plugin ${JSON.stringify(type)} not found in ${places}`;
}

function isExecutableFile(stats: BigIntStats): boolean {
  const anyExecute = constants.S_IXUSR | constants.S_IXGRP | constants.S_IXOTH;
  return stats.isFile() && (Number(stats.mode) & anyExecute) !== 0;
}

function identify(path: string, stats: BigIntStats): string {
  return [path, stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join("\0");
}
