import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";

import type { ImageHost } from "./host.ts";

/**
 * Makes a folder for what lives no longer than the daemon, without what a killed one left in it. One that is empty is
 * left as it is: on a read-only disk a daemon can start.
 */
export async function makeEmptyFolder({ removeTree }: Pick<ImageHost, "removeTree">, directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) await removeTree(join(directory, name));
}
