import { randomBytes } from "node:crypto";
import { access, mkdir, mkdtemp, readdir, rm, rmdir, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../native/index.ts";
import type { Logger } from "../../cri-api/index.ts";
import type { ContractSubject } from "../testing.ts";
import type { Spec } from "../spec/oci-types.ts";
import { readCgroupMounts } from "./cgroup-paths.ts";
import { createRuntime } from "./runtime.ts";
import type { CreateProcess, Runtime, RuntimeConfig } from "./types.ts";

export const silentLog: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

interface SpecWish {
  readonly args: readonly string[];
  readonly rootfs: string;
  readonly cgroupsPath: string;
  readonly terminal?: boolean;
  readonly sharesHostPids?: boolean;
  readonly memoryBytes?: number;
}

/** A small config.json with what a test varies; the building of real ones is tested where they are built. */
export function containerSpec(wish: SpecWish): Spec {
  const capabilities = ["CAP_KILL", "CAP_CHOWN"];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: wish.terminal ?? false,
      user: { uid: 0, gid: 0, umask: 0o22, additionalGids: [] },
      args: wish.args,
      env: ["PATH=/bin"],
      cwd: "/",
      capabilities: {
        bounding: capabilities,
        effective: capabilities,
        permitted: capabilities,
        inheritable: [],
        ambient: [],
      },
      noNewPrivileges: true,
      oomScoreAdj: 500,
    },
    root: { path: wish.rootfs, readonly: false },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=65536k"] },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
      },
    ],
    linux: {
      namespaces: [
        ...(wish.sharesHostPids ? [] : [{ type: "pid" } as const]),
        { type: "mount" },
        { type: "ipc" },
        { type: "uts" },
      ],
      cgroupsPath: wish.cgroupsPath,
      resources: wish.memoryBytes === undefined ? {} : { memory: { limit: wish.memoryBytes, swap: wish.memoryBytes } },
      devices: [],
      maskedPaths: [],
      readonlyPaths: [],
    },
  };
}

const applets = [
  "sh",
  "sleep",
  "true",
  "echo",
  "cat",
  "dd",
  "head",
  "ls",
  "setsid",
  "stty",
  "tail",
  "touch",
  "yes",
  "mkdir",
  "ps",
];

/** Debian's busybox with its C library, unpacked beside the system. */
export async function makeRootfs(directory: string): Promise<void> {
  const packages = await findPackages(directory);
  for (const path of packages) await runTool(["/usr/bin/dpkg", "-x", path, directory]);
  for (const applet of applets) await symlink("busybox", join(directory, "bin", applet));
  for (const name of ["proc", "dev", "sys", "tmp"]) await mkdir(join(directory, name), { recursive: true });
}

/** Those that the project's set-up has fetched, else fetched now. */
async function findPackages(directory: string): Promise<readonly string[]> {
  const cache = join(import.meta.dirname, "../../.cache/packages");
  const cached = await debsIn(cache);
  if (cached.length === 2) return cached;
  const download = join(directory, "packages");
  await mkdir(download, { recursive: true });
  await runTool(["/usr/bin/apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "busybox", "libc6"], download);
  return await debsIn(download);
}

async function debsIn(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory).catch(() => []);
  return names.filter((name) => /^(?:busybox|libc6)_.*\.deb$/.test(name)).map((name) => join(directory, name));
}

async function runTool(argv: readonly [string, ...string[]], cwd = "/"): Promise<void> {
  const signal = AbortSignal.timeout(120_000);
  const { status, stderr } = await run({ argv, cwd, env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }, signal });
  if (status.kind !== "exited" || status.code !== 0) throw new Error(`${argv.join(" ")}: ${stderr.toString("utf8")}`);
}

/** A real runtime with directories and cgroups of its own, which are gone when it is disposed. */
export interface Bench extends ContractSubject {
  readonly config: RuntimeConfig;
  readonly directory: string;
  /** As a daemon that is started later sees it. */
  reopen(config?: Partial<RuntimeConfig>): Promise<Runtime>;
  prepareSpec(args: readonly string[], wish?: Partial<SpecWish>): Promise<CreateProcess>;
  /** What of the bench is left outside its bundles: state, exit and exec files, runtime state, cgroups. */
  leftovers(): Promise<readonly string[]>;
}

export async function openBench(program: "crun" | "runc", overrides: Partial<RuntimeConfig> = {}): Promise<Bench> {
  const directory = await mkdtemp(join("/run", "berth-oci-"));
  const images = await mkdtemp(join(tmpdir(), "berth-oci-rootfs-"));
  const cgroupParent = `/berth-test-${randomBytes(4).toString("hex")}`;
  await makeRootfs(images);
  const config: RuntimeConfig = {
    handler: program,
    path: `/usr/${program === "runc" ? "sbin" : "bin"}/${program}`,
    root: join(directory, "root"),
    monitorPath: "/usr/bin/conmon",
    stateDir: join(directory, "state"),
    cgroupDriver: "cgroupfs",
    ...overrides,
  };
  const reopen = async (others: Partial<RuntimeConfig> = {}): Promise<Runtime> =>
    await createRuntime({ ...config, ...others }, { log: silentLog });
  let count = 0;

  async function prepareSpec(args: readonly string[], wish: Partial<SpecWish> = {}): Promise<CreateProcess> {
    count += 1;
    const id = `${program}-${randomBytes(4).toString("hex")}-${count}`;
    const bundle = join(directory, "bundles", id);
    await mkdir(bundle, { recursive: true });
    const spec = containerSpec({ args, rootfs: images, cgroupsPath: `${cgroupParent}/${id}`, ...wish });
    return {
      id,
      bundle,
      spec,
      logPath: join(bundle, "log"),
      tty: wish.terminal ?? false,
      stdin: false,
      stdinOnce: false,
    };
  }

  return {
    runtime: await reopen(),
    config,
    directory,
    reopen,
    prepareSpec,
    prepare: (args) => prepareSpec(args),
    async leftovers() {
      const files = ["state/exits", "state/execs", "state/containers", "root"].map((name) => join(directory, name));
      const lists = await Promise.all([...files, ...(await cgroupDirectories(cgroupParent))].map(entriesOf));
      return lists.flat();
    },
    async [Symbol.asyncDispose]() {
      for (const path of await cgroupDirectories(cgroupParent)) await rmdir(path);
      await rm(directory, { recursive: true, force: true });
      await rm(images, { recursive: true, force: true });
    },
  };
}

async function cgroupDirectories(parent: string): Promise<readonly string[]> {
  const { unified, controllers } = await readCgroupMounts();
  const mounts = [...Object.values(controllers), ...(unified ? [unified] : [])];
  const paths = [...new Set(mounts.map(({ mountPoint }) => join(mountPoint, parent)))];
  const found = await Promise.all(
    paths.map((path) =>
      access(path).then(
        () => [path],
        () => [],
      ),
    ),
  );
  return found.flat();
}

/** Entries that are not files of a cgroup itself. */
async function entriesOf(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const isCgroup = entries.some(({ name }) => name === "cgroup.procs");
  return entries.filter((entry) => !isCgroup || entry.isDirectory()).map(({ name }) => join(directory, name));
}
