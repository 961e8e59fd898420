import { spawn } from "node:child_process";
import { mkdir, open, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";
import { cacheDirectory } from "./repository.ts";
import { runCommand, tryCommand } from "./run-command.ts";
import { waitUntil } from "./wait-until.ts";

const programs = path.join(cacheDirectory, "containerd/usr/bin");
/** What makes folders outside of its own, or is of no use to a store of images; it wants one snapshotter at least. */
const unused = [
  "io.containerd.internal.v1.opt",
  "io.containerd.grpc.v1.cri",
  "io.containerd.runtime.v1.linux",
  "io.containerd.runtime.v2.task",
  ...["aufs", "btrfs", "devmapper", "overlayfs", "zfs"].map((name) => `io.containerd.snapshotter.v1.${name}`),
];

/** Debian's containerd as a store of images, and nothing else. */
export interface Containerd extends AsyncDisposable {
  ctr(...args: readonly string[]): Promise<string>;
}

/** Starts one that keeps all it has in `directory`, which is made. */
export async function startContainerd(directory: string): Promise<Containerd> {
  await mkdir(directory);
  const socket = path.join(directory, "socket");
  const configFile = path.join(directory, "config.toml");
  const [root, state] = [path.join(directory, "root"), path.join(directory, "state")];
  await writeFile(
    configFile,
    stringify({ version: 2, root, state, grpc: { address: socket }, disabled_plugins: unused }),
  );
  const log = await open(path.join(directory, "log"), "a");
  const child = spawn(path.join(programs, "containerd"), ["--config", configFile], {
    stdio: ["ignore", log.fd, log.fd],
    env: { PATH: process.env["PATH"], TMPDIR: directory },
  });
  await log.close();
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const command = [path.join(programs, "ctr"), "--address", socket];
  await waitUntil("containerd to answer", async () => {
    if (child.exitCode !== null) throw new Error(`containerd ended with ${child.exitCode}`);
    return (await tryCommand([...command, "version"])).exitCode === 0 ? true : undefined;
  });
  return {
    ctr: (...args) => runCommand([...command, ...args]),
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
