import { rename, rm, unlink, writeFile } from "node:fs/promises";
import { errnoOf } from "../../cri-api/index.ts";

/**
 * Replaces a file in one step for whoever reads it, also when this process dies in the middle. It is not brought to the
 * disk: what it tells of is gone after a power cut, and where the directory is no tmpfs an fsync costs several ms.
 */
export async function writeVolatile(path: string, text: string): Promise<void> {
  const aside = asideOf(path);
  try {
    await writeFile(aside, text, { mode: 0o600 });
    await rename(aside, path);
  } catch (thrown) {
    await rm(aside, { force: true });
    throw thrown;
  }
}

/** Removes the file, and what a write left that a crash cut short. */
export async function removeVolatile(path: string): Promise<void> {
  await Promise.all([path, asideOf(path)].map((name) => rm(name, { force: true })));
}

/** Removes one file, if it is there, in one step: `rm` looks twice before. */
export async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((thrown: unknown) => {
    if (errnoOf(thrown) !== "ENOENT") throw thrown;
  });
}

function asideOf(path: string): string {
  return `${path}.tmp`;
}
