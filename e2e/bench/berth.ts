import { constants, copyFile, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";
import { rulesFor, writeRegistryFiles } from "../harness/registry-files.ts";
import { pluginDirectory } from "../harness/network.ts";
import type { Workspace } from "../harness/workspace.ts";
import { type Contestant, startContestant } from "./contestant.ts";
import { readDeployment } from "../harness/deployment.ts";
import type { BenchImages } from "./images.ts";

interface BerthOptions {
  readonly name: string;
  /** The working tree to run, with its node_modules and its built addon. */
  readonly repository: string;
  /** More flags of Node, such as --cpu-prof. */
  readonly nodeFlags: readonly string[];
  /** NAME=VALUE, beside those of the unit file. */
  readonly env: readonly string[];
  /** On loopback, for metrics; none are served when absent, since they cost memory. */
  readonly metricsPort?: number;
}

/** Starts a Berth as its unit file would, with folders of its own in the workspace, on the workspace's network. */
export async function startBerth(
  workspace: Workspace,
  images: BenchImages,
  options: BerthOptions,
): Promise<Contestant> {
  const { name, repository } = options;
  const at = (file: string): string => path.join(workspace.directory, name, file);
  await mkdir(at("cni/results"), { recursive: true });
  await mkdir(at("state"), { mode: 0o711 });
  const socketPath = at("state/berth.sock");
  await writeFile(at("berth.toml"), stringify(await berthConfig(workspace, images, { at, socketPath, ...options })));
  // On a node nobody else runs this program; were it the file that runs the benchmark, half of its pages would count.
  await copyFile(path.join(repository, "node_modules/.bin/node"), at("node"), constants.COPYFILE_FICLONE);
  const { nodeFlags, env } = await readDeployment(repository);
  const own = options.env.map((assignment) => assignment.split(/=(.*)/u, 2));
  const wanted: Record<string, string> = { ...env, ...(Object.fromEntries(own) as Record<string, string>) };
  const hasCompileCache = wanted["NODE_COMPILE_CACHE"] !== undefined;
  const command = {
    name,
    argv: [
      at("node"),
      ...nodeFlags,
      ...options.nodeFlags,
      path.join(repository, "server/main.ts"),
      "serve",
      "--config",
      at("berth.toml"),
    ] as [string, ...string[]],
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      TMPDIR: workspace.temporary,
      ...wanted,
      ...(hasCompileCache ? { NODE_COMPILE_CACHE: at("compile-cache") } : {}),
    },
    socketPath,
    logFile: path.join(workspace.logs, `${name}.log`),
    images,
    ...(options.metricsPort === undefined ? {} : { metricsUrl: `http://127.0.0.1:${options.metricsPort}/metrics` }),
  };
  // Only a node's first start finds the cache empty.
  if (hasCompileCache) await (await startContestant(command))[Symbol.asyncDispose]();
  return startContestant(command);
}

async function berthConfig(
  workspace: Workspace,
  images: BenchImages,
  place: { readonly at: (file: string) => string; readonly socketPath: string; readonly metricsPort?: number },
): Promise<Record<string, unknown>> {
  return {
    root: place.at("root"),
    state: place.at("state"),
    socket: place.socketPath,
    cgroup_driver: "cgroupfs",
    default_runtime: "crun",
    runtimes: { crun: { path: "crun" } },
    cni: { conf_dir: workspace.cniConfDir, plugin_dirs: [pluginDirectory], cache_dir: place.at("cni") },
    registries: await writeRegistryFiles(place.at("registries"), rulesFor(images.registries)),
    ...(place.metricsPort === undefined ? {} : { metrics: { address: "127.0.0.1", port: place.metricsPort } }),
  };
}
