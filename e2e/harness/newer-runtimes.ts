import path from "node:path";
import { cacheDirectory, repository } from "./repository.ts";
import { runCommand } from "./run-command.ts";

const directory = path.join(cacheDirectory, "newer-runtimes");

/** crun and runc of Debian sid, by handler; only they can map mounts. `unpackNewerRuntimes` must have run. */
export const newerRuntimes = {
  crun: { path: path.join(directory, "bin/crun") },
  runc: { path: path.join(directory, "bin/runc") },
} as const;

/** Downloads and unpacks them beside the system's own, once. */
export async function unpackNewerRuntimes(): Promise<void> {
  await runCommand(["sh", path.join(repository, "e2e/newer-runtimes.sh"), directory], { timeoutMs: 300_000 });
}
