import { lockDirectory } from "../native/index.ts";
import type { Config } from "./config.ts";
import { makePassage } from "./listener.ts";

/**
 * Makes the directories of our state and keeps every other Berth out of them until this process ends, however it ends.
 *
 * @throws {Error} where another one has them.
 */
export async function claimDirectories({ root, state }: Pick<Config, "root" | "state">): Promise<void> {
  for (const directory of [root, state]) {
    await makePassage(directory);
    if (lockDirectory(directory) === undefined) throw new Error(`another Berth is at work on "${directory}"`);
  }
}
