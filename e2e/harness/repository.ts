import path from "node:path";

/** The top of the working tree, and the places under it that tests read or write. */
export const repository = path.resolve(import.meta.dirname, "../..");
export const cacheDirectory = path.join(repository, ".cache");
export const packagesDirectory = path.join(cacheDirectory, "packages");
export const nodeProgram = path.join(repository, "node_modules/.bin/node");
