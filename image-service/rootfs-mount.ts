import { access, mkdir, mkdtemp, readFile, rmdir, stat } from "node:fs/promises";
import { join, relative } from "node:path";

import * as v from "valibot";

import { Code, CriError } from "../cri-api/index.ts";
import { NewerSchemaError, type NewFolder, refuseNewerSchema, SyscallError } from "../native/index.ts";
import { type Digest, isDigest } from "./digest.ts";
import type { ImageHost } from "./host.ts";

const schemaVersion = 1;
const recordSchema = v.object({
  schemaVersion: v.literal(schemaVersion),
  layers: v.array(v.custom<Digest>((value) => typeof value === "string" && isDigest(value))),
});
const recordName = "rootfs.json";
const unmountTimeoutMs = 30_000;

/** One container's folder: its record, its writable layer, overlayfs's scratch folder. */
export interface RootfsHome {
  readonly path: string;
  readonly upper: string;
  /** Folders for the volumes that its image declares. */
  readonly declaredVolumes: string;
}

export function rootfsHome(directory: string, containerId: string): RootfsHome {
  const path = join(directory, containerId);
  return { path, upper: join(path, "upper"), declaredVolumes: join(path, "declared-volumes") };
}

/**
 * The layers that a container's rootfs stands on; none if its creation never came to the mount.
 *
 * @throws {NewerSchemaError} where a newer Berth has written them down.
 */
export async function readRootfsLayers(home: RootfsHome): Promise<readonly Digest[]> {
  try {
    const json: unknown = JSON.parse(await readFile(join(home.path, recordName), "utf8"));
    refuseNewerSchema(json, schemaVersion);
    return v.parse(recordSchema, json).layers;
  } catch (thrown) {
    if (thrown instanceof NewerSchemaError) throw thrown;
    return [];
  }
}

/**
 * The root of a pod's user namespace, for whom the image's files are to be root's. overlayfs cannot be idmapped as a
 * whole (up to Linux 6.18 at least), but its lower layers can (from 5.19 on), and the upper one then belongs to him.
 */
export interface RootfsOwner {
  /** Path of the pinned namespace, which maps one range of ids from 0 on. */
  readonly userNamespace: string;
  /** The ids outside of those that are 0 inside. */
  readonly uid: number;
  readonly gid: number;
}

/** As what an image's files are to be seen; as they are in the image without one or the other. */
export interface RootfsView {
  readonly owner?: RootfsOwner | undefined;
  /** The SELinux context that they all have. */
  readonly label?: string | undefined;
}

/** What a root filesystem is to be made of, and where. */
export interface RootfsPlan extends RootfsView {
  /** Top first. */
  readonly layers: readonly { readonly diffId: Digest; readonly path: string }[];
  /** The layers lie below it. */
  readonly layersDirectory: string;
  readonly target: string;
}

/** The container's root shows the attributes of the topmost folder, so that one is made like the image's. */
async function upperFolder(home: RootfsHome, topLayer: string | undefined, view: RootfsView): Promise<NewFolder> {
  const { uid, gid } = view.owner ?? { uid: 0, gid: 0 };
  const like = topLayer === undefined ? { mode: 0o755, uid, gid } : await stat(topLayer);
  return { path: home.upper, mode: like.mode & 0o7777, uid: like.uid, gid: like.gid };
}

/** The image's layers as the overlay is to see them. */
async function mountLayers(host: ImageHost, home: RootfsHome, plan: RootfsPlan): Promise<readonly string[]> {
  const paths = plan.layers.map(({ path }) => path);
  if (plan.owner === undefined || paths.length === 0) return paths;
  const { userNamespace } = plan.owner;
  const mapped = mappedLayers(home);
  await mkdir(mapped, { mode: 0o700 });
  try {
    await host.bindMount({ source: plan.layersDirectory, target: mapped, propagation: "private", userNamespace });
  } catch (thrown) {
    if (!(thrown instanceof SyscallError) || thrown.syscall !== "mount_setattr" || thrown.code !== "EINVAL")
      throw thrown;
    const text = "the file system that holds the images cannot map owners, which a user namespace needs";
    throw new CriError(Code.FailedPrecondition, text, { cause: thrown });
  }
  return paths.map((path) => join(mapped, relative(plan.layersDirectory, path)));
}

/** Layers with mapped owners, until the overlay is mounted: it keeps a private clone of the mount of each layer. */
function mappedLayers(home: RootfsHome): string {
  return join(home.path, "mapped");
}

/** Notes what layers the container stands on, so that they are kept for it over a restart; it outlives no power cut. */
async function writeRecord(host: ImageHost, home: RootfsHome, layers: readonly Digest[]): Promise<void> {
  const text = JSON.stringify({ schemaVersion, layers });
  await host.writeFileAtomically(join(home.path, recordName), text, { survives: "kill" });
}

function labelOption({ label }: RootfsView): readonly string[] {
  return label === undefined ? [] : [`context="${label}"`];
}

/** Mounts an image's layers read-only, as a further file system of the container. */
export async function mountVolume(
  host: ImageHost,
  home: RootfsHome,
  plan: RootfsPlan & { readonly held: readonly Digest[] },
): Promise<void> {
  const { target } = plan;
  await writeRecord(host, home, plan.held);
  const lowerDirs = [...(await mountLayers(host, home, plan))];
  while (lowerDirs.length < 2) lowerDirs.push(await mkdtemp(join(home.path, "lower-"))); // an overlay without an upper folder needs two
  await mkdir(target, { recursive: true, mode: 0o755 });
  await host.mountOverlay({ lowerDirs, target, options: ["index=off", ...labelOption(plan)] });
  await unmountLayers(host, home, AbortSignal.timeout(unmountTimeoutMs));
}

/** Mounts the layers under a fresh writable one. */
export async function mountRootfs(host: ImageHost, home: RootfsHome, plan: RootfsPlan): Promise<void> {
  const { target } = plan;
  const held = plan.layers.map(({ diffId }) => diffId);
  const work = join(home.path, "work");
  const empty = join(home.path, "lower");
  await host.makeFolders([{ path: home.path, mode: 0o700 }]);
  await writeRecord(host, home, held);
  const lowerDirs = await mountLayers(host, home, plan);
  await host.makeFolders([
    await upperFolder(home, lowerDirs[0], plan),
    { path: work, mode: 0o700 },
    { path: target, mode: 0o755 },
    ...(lowerDirs.length === 0 ? [{ path: empty, mode: 0o755 }] : []), // an overlay needs a lower folder
  ]);
  await host.mountOverlay({
    lowerDirs: lowerDirs.length === 0 ? [empty] : lowerDirs,
    upperDir: home.upper,
    workDir: work,
    target,
    // No container outlives a power cut, so its syncs need not reach the disk, nor need its unmount wait for them.
    options: ["index=off", "volatile", ...labelOption(plan)],
  });
  if (plan.owner) await unmountLayers(host, home, AbortSignal.timeout(unmountTimeoutMs));
}

async function unmountLayers(host: ImageHost, home: RootfsHome, signal: AbortSignal): Promise<void> {
  const mapped = mappedLayers(home);
  const isThere = await access(mapped).then(
    () => true,
    () => false,
  );
  if (!isThere) return;
  await host.unmount(mapped, { signal });
  await rmdir(mapped);
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
  await unmountLayers(host, home, signal); // a daemon that was killed while mounting left them
  await host.removeTree(home.path);
}
