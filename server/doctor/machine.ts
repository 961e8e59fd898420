import { readdir, readFile, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { cgroupLayout, kernelCapabilities, readMountTable, run, which } from "../../native/index.ts";
import type { CgroupLayout, MountEntry } from "../../native/index.ts";

/** What the checks ask of a machine; all of it read-only. */
export interface Machine {
  readonly userId: number;
  /** Absolute path of a program, by name or path. */
  findProgram(name: string): Promise<string | undefined>;
  /** The first line of `program --version`. */
  versionOf(program: string): Promise<string>;
  /** Contents of a small text file; undefined if it cannot be read. */
  readText(path: string): Promise<string | undefined>;
  /** Names in a directory, sorted; none if it cannot be read. */
  listNames(directory: string): Promise<readonly string[]>;
  /** The file system a path lies on, or will lie on once it is made. */
  fileSystemOf(path: string): Promise<number | undefined>;
  /** Bit N is capability N. */
  capabilities(): Promise<bigint>;
  cgroupLayout(): Promise<CgroupLayout>;
  mounts(): Promise<readonly MountEntry[]>;
}

const versionTimeoutMs = 5000;

async function fileSystemOf(path: string): Promise<number | undefined> {
  try {
    return (await statfs(path)).type;
  } catch {
    return path === dirname(path) ? undefined : await fileSystemOf(dirname(path));
  }
}

/** The machine we run on. */
export function createMachine(searchPath: string): Machine {
  return {
    userId: process.getuid?.() ?? -1,
    findProgram: (name) => which(name, searchPath),
    async versionOf(program) {
      const signal = AbortSignal.timeout(versionTimeoutMs);
      const { stdout } = await run({ argv: [program, "--version"], env: { PATH: searchPath }, signal });
      return stdout.toString("utf8").split("\n", 1)[0] ?? "";
    },
    readText: (path) => readFile(path, "utf8").catch(() => undefined),
    listNames: async (directory) => (await readdir(directory).catch((): string[] => [])).sort(),
    fileSystemOf,
    capabilities: async () => (await kernelCapabilities()).effective,
    cgroupLayout,
    mounts: readMountTable,
  };
}
