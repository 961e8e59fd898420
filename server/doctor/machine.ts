import { readdir, readFile, statfs } from "node:fs/promises";
import { release } from "node:os";
import { dirname } from "node:path";
import { pino } from "pino";
import { examineRegistries } from "../../image-service/index.ts";
import { cgroupLayout, kernelCapabilities, readFileBounded, readMountTable, run, which } from "../../native/index.ts";
import type { CgroupLayout, MountEntry } from "../../native/index.ts";
import { probeRuntime } from "../../oci/index.ts";
import type { RuntimeFacts } from "../../oci/index.ts";
import type { Environment, RegistryFiles } from "../config.ts";
import { refuseLiveListener } from "../listener.ts";
import { registriesConfig } from "../registry-files.ts";

/** The file system that a path lies on. */
export interface FileSystem {
  /** Its magic number. @see https://man7.org/linux/man-pages/man2/statfs.2.html */
  readonly type: number;
  readonly totalBytes: number;
  /** For others than root too. */
  readonly freeBytes: number;
  /** 0 where the file system makes them as they are needed. */
  readonly totalInodes: number;
  readonly freeInodes: number;
}

/** What the checks ask of a machine; all of it read-only. */
export interface Machine {
  readonly userId: number;
  /** As uname tells it. */
  readonly kernelRelease: string;
  /** Absolute path of a program, by name or path. */
  findProgram(name: string): Promise<string | undefined>;
  /** The first line of `program --version`. */
  versionOf(program: string): Promise<string>;
  /** Version and abilities of an OCI runtime; rejects where it does not run. */
  runtimeFacts(program: string): Promise<RuntimeFacts>;
  /** Contents of a small text file; undefined if it cannot be read. */
  readText(path: string): Promise<string | undefined>;
  /** Names in a directory, sorted; none if it cannot be read. */
  listNames(directory: string): Promise<readonly string[]>;
  /** The file system a path lies on, or will lie on once it is made. */
  fileSystemOf(path: string): Promise<FileSystem | undefined>;
  /** Why no daemon could listen on a path: one does, or something else is there; undefined where it could. */
  whyTaken(socket: string): Promise<string | undefined>;
  /** What is wrong with the files that say how registries are reached. */
  registryProblems(files: RegistryFiles): Promise<readonly string[]>;
  /** Bit N is capability N. */
  capabilities(): Promise<bigint>;
  cgroupLayout(): Promise<CgroupLayout>;
  mounts(): Promise<readonly MountEntry[]>;
}

const versionTimeoutMs = 5000;

async function fileSystemOf(path: string): Promise<FileSystem | undefined> {
  try {
    const { type, bsize, blocks, bavail, files, ffree } = await statfs(path);
    return {
      type,
      totalBytes: blocks * bsize,
      freeBytes: bavail * bsize,
      totalInodes: files,
      freeInodes: ffree,
    };
  } catch {
    return path === dirname(path) ? undefined : await fileSystemOf(dirname(path));
  }
}

/** The machine we run on. */
export function createMachine(environment: Environment): Machine {
  const searchPath = environment.path;
  return {
    userId: process.getuid?.() ?? -1,
    kernelRelease: release(),
    findProgram: (name) => which(name, searchPath),
    async versionOf(program) {
      const signal = AbortSignal.timeout(versionTimeoutMs);
      const { stdout } = await run({ argv: [program, "--version"], env: { PATH: searchPath }, signal });
      return stdout.toString("utf8").split("\n", 1)[0] ?? "";
    },
    runtimeFacts: probeRuntime,
    readText: (path) => readFile(path, "utf8").catch(() => undefined),
    listNames: async (directory) => (await readdir(directory).catch((): string[] => [])).sort(),
    fileSystemOf,
    whyTaken: (socket) =>
      refuseLiveListener(socket).then(
        () => undefined,
        (thrown: unknown) => (thrown instanceof Error ? thrown.message : String(thrown)),
      ),
    registryProblems: (files) =>
      examineRegistries({
        config: registriesConfig(files, environment),
        host: { readFileBounded, run, which },
        log: pino({ level: "silent" }),
      }),
    capabilities: async () => (await kernelCapabilities()).effective,
    cgroupLayout,
    mounts: readMountTable,
  };
}
