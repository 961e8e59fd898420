import { readdirSync } from "node:fs";
import { lstat } from "node:fs/promises";
import { join } from "node:path";

import type { TreeSize } from "./protocol.ts";

/** Blocks and inodes of a folder and all below it, as `du` counts them; what vanishes meanwhile is left out. */
export async function runUsage(directory: string, signal: AbortSignal): Promise<TreeSize> {
  let usedBytes = 0;
  let inodes = 0;
  const linked = new Set<number>();
  const left = [directory];
  for (let path = left.pop(); path !== undefined; path = left.pop()) {
    const status = await lstat(path).catch(() => undefined);
    signal.throwIfAborted();
    if (status === undefined) continue;
    if (status.isDirectory()) left.push(...entriesOf(path));
    else if (status.nlink > 1) {
      if (linked.has(status.ino)) continue;
      linked.add(status.ino);
    }
    usedBytes += status.blocks * 512;
    inodes += 1;
  }
  return { usedBytes, inodes };
}

function entriesOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return [];
  }
}
