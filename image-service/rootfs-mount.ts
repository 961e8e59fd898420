import { chmod, chown, mkdir, readFile, rmdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import * as v from "valibot";

import { type Digest, isDigest } from "./digest.ts";
import type { ImageHost } from "./host.ts";

const recordSchema = v.object({
  schemaVersion: v.literal(1),
  layers: v.array(v.custom<Digest>((value) => typeof value === "string" && isDigest(value))),
});
const recordName = "rootfs.json";

/** One container's folder: its record, its writable layer, overlayfs's scratch folder. */
export interface RootfsHome {
  readonly path: string;
  readonly upper: string;
}

export function rootfsHome(directory: string, containerId: string): RootfsHome {
  const path = join(directory, containerId);
  return { path, upper: join(path, "upper") };
}

/** The layers that a container's rootfs stands on; none if its creation never came to the mount. */
export async function readRootfsLayers(home: RootfsHome): Promise<readonly Digest[]> {
  try {
    return v.parse(recordSchema, JSON.parse(await readFile(join(home.path, recordName), "utf8"))).layers;
  } catch {
    return [];
  }
}

/** The container's root shows the attributes of the topmost folder, so that one is made like the image's. */
async function makeUpper(path: string, topLayer: string | undefined): Promise<void> {
  const like = topLayer === undefined ? { mode: 0o755, uid: 0, gid: 0 } : await stat(topLayer);
  await mkdir(path);
  await chown(path, like.uid, like.gid);
  await chmod(path, like.mode & 0o7777);
}

/** Mounts the layers, top first, under a fresh writable one. */
export async function mountRootfs(
  host: ImageHost,
  home: RootfsHome,
  layers: readonly { readonly diffId: Digest; readonly path: string }[],
  target: string,
): Promise<void> {
  const work = join(home.path, "work");
  const empty = join(home.path, "lower");
  await mkdir(home.path, { mode: 0o700 });
  const record = { schemaVersion: 1, layers: layers.map(({ diffId }) => diffId) };
  await writeFile(join(home.path, recordName), JSON.stringify(record), { mode: 0o600 });
  await makeUpper(home.upper, layers[0]?.path);
  await mkdir(work, { mode: 0o700 });
  if (layers.length === 0) await mkdir(empty); // an overlay needs a lower folder
  await mkdir(target, { recursive: true, mode: 0o755 });
  await host.mountOverlay({
    lowerDirs: layers.length === 0 ? [empty] : layers.map(({ path }) => path),
    upperDir: home.upper,
    workDir: work,
    target,
    // No container outlives a power cut, so its syncs need not reach the disk, nor need its unmount wait for them.
    options: ["index=off", "volatile"],
  });
}

/** Undoes all of {@link mountRootfs}, or what there is of it. */
export async function unmountRootfs(
  host: ImageHost,
  home: RootfsHome,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  await host.unmount(target, { signal });
  await rmdir(target).catch(() => undefined); // absent, or holding what we did not put there
  await host.removeTree(home.path);
}
