import { chmod, chown, mkdir, readdir, readFile, rmdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import * as v from "valibot";

import { Code, CriError, type Logger } from "../cri-api/index.ts";
import { type Digest, isDigest } from "./digest.ts";
import type { ImageHost } from "./host.ts";
import { quote } from "./reference.ts";
import type { StoredImage } from "./store/image-record.ts";
import type { LayerHold, LayerStore } from "./store/layer-store.ts";
import type { TreeSize } from "./worker/protocol.ts";

/** What a container has written to its root filesystem. */
export interface RootfsUsage {
  readonly usedBytes: bigint;
  readonly inodesUsed: bigint;
  readonly timestampNs: bigint;
  /** A path on the file system that holds it. */
  readonly mountpoint: string;
}

/** Containers' root filesystems: an image's layers below, a folder of the container's own on top. */
export interface RootfsStore extends AsyncDisposable {
  create(containerId: string, image: StoredImage, target: string): Promise<void>;
  remove(containerId: string, target: string, signal: AbortSignal): Promise<void>;
  ids(): readonly string[];
  usage(containerId: string): RootfsUsage | undefined;
}

export interface RootfsParts {
  readonly directory: string;
  /** Told as the place of the writable layers. */
  readonly mountpoint: string;
  readonly layers: LayerStore;
  readonly host: ImageHost;
  readonly log: Logger;
  measure(directory: string): Promise<TreeSize>;
}

interface Rootfs {
  readonly hold: LayerHold;
  size: TreeSize;
  measuredAtMs: number;
  isMeasuring: boolean;
}

const recordSchema = v.object({
  schemaVersion: v.literal(1),
  layers: v.array(v.custom<Digest>((value) => typeof value === "string" && isDigest(value))),
});
const recordName = "rootfs.json";
const idPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const usageMaxAgeMs = 10_000;
/** An upper folder with nothing in it. */
const emptySize: TreeSize = { usedBytes: 4096, inodes: 1 };

function checkId(containerId: string): void {
  if (!idPattern.test(containerId))
    throw new CriError(Code.InvalidArgument, `container id ${quote(containerId)} is malformed`);
}

async function readLayers(path: string): Promise<readonly Digest[]> {
  try {
    return v.parse(recordSchema, JSON.parse(await readFile(path, "utf8"))).layers;
  } catch {
    return []; // never written to its end, so never mounted
  }
}

/** Layers top first, each once: a layer that comes again higher up hides all that its lower copy has. */
export function lowerLayers(image: StoredImage): readonly Digest[] {
  return [...new Set(image.layers.map(({ diffId }) => diffId).reverse())];
}

export async function openRootfsStore(parts: RootfsParts): Promise<RootfsStore> {
  const { directory, layers, host, log } = parts;
  const containers = new Map<string, Rootfs>();
  const background = new Set<Promise<unknown>>();

  function add(containerId: string, diffIds: readonly Digest[], measuredAtMs: number): LayerHold {
    const hold = layers.hold(diffIds);
    containers.set(containerId, { hold, size: emptySize, measuredAtMs, isMeasuring: false });
    return hold;
  }
  function inBackground(work: Promise<unknown>): void {
    const quiet = work.catch((thrown: unknown) => log.debug({ error: String(thrown) }, "background work failed"));
    background.add(quiet);
    void quiet.finally(() => background.delete(quiet));
  }

  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) add(name, await readLayers(join(directory, name, recordName)), 0);

  /** The root of the container shows the attributes of the topmost folder, so the upper one copies the image's. */
  async function makeUpper(path: string, top: Digest | undefined): Promise<void> {
    const like = top === undefined ? { mode: 0o755, uid: 0, gid: 0 } : await stat(layers.rootOf(top));
    await mkdir(path);
    await chown(path, like.uid, like.gid);
    await chmod(path, like.mode & 0o7777);
  }

  async function mount(home: string, image: StoredImage, target: string): Promise<void> {
    const diffIds = lowerLayers(image);
    const lower = join(home, "lower");
    const paths = { lower, upper: join(home, "upper"), work: join(home, "work") };
    await mkdir(home, { mode: 0o700 });
    await writeFile(join(home, recordName), JSON.stringify({ schemaVersion: 1, layers: diffIds }), { mode: 0o600 });
    await makeUpper(paths.upper, diffIds[0]);
    await mkdir(paths.work, { mode: 0o700 });
    if (diffIds.length === 0) await mkdir(paths.lower); // an overlay needs one
    await mkdir(target, { recursive: true, mode: 0o755 });
    await host.mountOverlay({
      lowerDirs: diffIds.length === 0 ? [paths.lower] : diffIds.map((diffId) => layers.rootOf(diffId)),
      upperDir: paths.upper,
      workDir: paths.work,
      target,
      // Nothing of a container outlives a power cut, so its syncs need not reach the disk, nor its unmount wait.
      options: ["index=off", "volatile"],
    });
  }

  function refresh(containerId: string, rootfs: Rootfs): void {
    rootfs.isMeasuring = true;
    const measuring = parts.measure(join(directory, containerId, "upper"));
    inBackground(
      measuring
        .then((size) => {
          rootfs.size = size;
        })
        .finally(() => {
          rootfs.isMeasuring = false;
          rootfs.measuredAtMs = Date.now();
        }),
    );
  }

  async function undo(containerId: string, target: string, signal: AbortSignal): Promise<void> {
    await host.unmount(target, { signal });
    await rmdir(target).catch(() => undefined); // absent, or not ours to remove
    await host.removeTree(join(directory, containerId));
    const rootfs = containers.get(containerId);
    containers.delete(containerId);
    if (rootfs !== undefined) inBackground(rootfs.hold.release());
  }

  return {
    async create(containerId, image, target) {
      checkId(containerId);
      if (containers.has(containerId))
        throw new CriError(Code.AlreadyExists, `container ${quote(containerId)} has a root filesystem already`);
      add(containerId, lowerLayers(image), Date.now());
      try {
        await mount(join(directory, containerId), image, target);
      } catch (thrown) {
        await undo(containerId, target, AbortSignal.timeout(30_000));
        throw new CriError(Code.Internal, `cannot mount the root filesystem of container ${quote(containerId)}`, {
          cause: thrown,
        });
      }
    },
    async remove(containerId, target, signal) {
      checkId(containerId);
      await undo(containerId, target, signal);
    },
    ids: () => [...containers.keys()],
    usage(containerId) {
      const rootfs = containers.get(containerId);
      if (rootfs === undefined) return undefined;
      if (!rootfs.isMeasuring && Date.now() - rootfs.measuredAtMs > usageMaxAgeMs) refresh(containerId, rootfs);
      return {
        usedBytes: BigInt(rootfs.size.usedBytes),
        inodesUsed: BigInt(rootfs.size.inodes),
        timestampNs: BigInt(rootfs.measuredAtMs || Date.now()) * 1_000_000n,
        mountpoint: parts.mountpoint,
      };
    },
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(background);
    },
  };
}
