import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";
import { pluginDirectory } from "../harness/network.ts";
import type { Workspace } from "../harness/workspace.ts";
import { type Contestant, startContestant } from "./contestant.ts";
import type { BenchImages } from "./images.ts";

interface BerthOptions {
  readonly name: string;
  /** The working tree to run, with its node_modules and its built addon. */
  readonly repository: string;
  /** Flags of Node itself, such as --cpu-prof. */
  readonly nodeFlags: readonly string[];
}

/** Starts a Berth with folders of its own in the workspace, on the workspace's network. */
export async function startBerth(
  workspace: Workspace,
  images: BenchImages,
  options: BerthOptions,
): Promise<Contestant> {
  const directory = path.join(workspace.directory, options.name);
  const at = (name: string): string => path.join(directory, name);
  const socketPath = at("state/berth.sock");
  await mkdir(at("cni/results"), { recursive: true });
  await mkdir(at("state"), { mode: 0o711 });
  const config = {
    root: at("root"),
    state: at("state"),
    socket: socketPath,
    cgroup_driver: "cgroupfs",
    default_runtime: "crun",
    runtimes: { crun: { path: "crun" } },
    cni: { conf_dir: workspace.cniConfDir, plugin_dirs: [pluginDirectory], cache_dir: at("cni") },
    registries: { [images.registry]: { insecure: true } },
  };
  await writeFile(at("berth.toml"), stringify(config));
  const node = path.join(options.repository, "node_modules/.bin/node");
  const main = path.join(options.repository, "server/main.ts");
  return startContestant({
    name: options.name,
    argv: [node, ...options.nodeFlags, main, "serve", "--config", at("berth.toml")],
    env: { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TMPDIR: workspace.temporary },
    socketPath,
    logFile: path.join(workspace.logs, `${options.name}.log`),
    images,
  });
}
