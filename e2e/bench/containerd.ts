import { access, mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";
import { pluginDirectory } from "../harness/network.ts";
import { cacheDirectory } from "../harness/repository.ts";
import type { Workspace } from "../harness/workspace.ts";
import { type Contestant, startContestant } from "./contestant.ts";
import type { BenchImages } from "./images.ts";

const programs = path.join(cacheDirectory, "containerd/usr/bin");
/** What it is called in the results. */
export const containerdName = "containerd";
/** Where its shims keep sockets and crun's state, whatever the configuration says. */
const fixedDirectory = "/run/containerd";
const cri = "io.containerd.grpc.v1.cri";

/** Starts Debian's containerd as it comes, but with folders of its own in the workspace, crun, and the same network. */
export async function startContainerd(workspace: Workspace, images: BenchImages): Promise<Contestant> {
  const directory = path.join(workspace.directory, "containerd");
  const socketPath = path.join(directory, "containerd.sock");
  const configFile = path.join(directory, "config.toml");
  const hadFixedDirectory = await access(fixedDirectory).then(
    () => true,
    () => false,
  );
  await mkdir(directory);
  await writeFile(configFile, stringify(containerdConfig(workspace, images, { directory, socketPath })));
  const contestant = await startContestant({
    name: containerdName,
    argv: [path.join(programs, "containerd"), "--config", configFile],
    // It looks for its shim in PATH.
    env: { PATH: `${programs}:/usr/sbin:/usr/bin:/sbin:/bin`, TMPDIR: workspace.temporary },
    socketPath,
    logFile: path.join(workspace.logs, "containerd.log"),
    images,
  });
  return {
    ...contestant,
    async [Symbol.asyncDispose]() {
      await contestant[Symbol.asyncDispose]();
      if (!hadFixedDirectory) await rm(fixedDirectory, { recursive: true, force: true }); // only pods make it
    },
  };
}

function containerdConfig(
  workspace: Workspace,
  images: BenchImages,
  place: { readonly directory: string; readonly socketPath: string },
): Record<string, unknown> {
  const mirrors = images.registries.map((registry) => [registry, { endpoint: [`http://${registry}`] }] as const);
  const snapshotters = ["aufs", "btrfs", "devmapper", "native", "zfs"];
  return {
    version: 2,
    root: path.join(place.directory, "root"),
    state: path.join(place.directory, "state"),
    grpc: { address: place.socketPath },
    disabled_plugins: [
      "io.containerd.internal.v1.opt", // makes /opt/containerd
      ...snapshotters.map((name) => `io.containerd.snapshotter.v1.${name}`),
    ],
    plugins: {
      [cri]: {
        sandbox_image: images.pauseImage,
        restrict_oom_score_adj: true, // without CAP_SYS_RESOURCE the kernel refuses its -998
        netns_mounts_under_state_dir: true, // so that a failed run leaves nothing outside the workspace
        cni: { bin_dir: pluginDirectory, conf_dir: workspace.cniConfDir },
        containerd: {
          default_runtime_name: "crun",
          runtimes: { crun: { runtime_type: "io.containerd.runc.v2", options: { BinaryName: "crun" } } },
        },
        registry: { mirrors: Object.fromEntries(mirrors) },
      },
    },
  };
}
