import { mkdir, readdir } from "node:fs/promises";

import { Code, CriError, type Logger } from "../cri-api/index.ts";
import { createKeyedLock, type KeyedLock, SyscallError, type TreeSize } from "../native/index.ts";
import { type DeclaredVolume, mountDeclaredVolume } from "./declared-volume.ts";
import type { Digest } from "./digest.ts";
import type { ImageHost } from "./host.ts";
import { quote } from "./reference.ts";
import {
  mountRootfs,
  mountVolume,
  readRootfsLayers,
  rootfsHome,
  type RootfsPlan,
  type RootfsView,
  unmountRootfs,
} from "./rootfs-mount.ts";
import type { StoredImage } from "./store/image-record.ts";
import type { LayerHold, LayerStore } from "./store/layer-store.ts";

/** What a container has written to its root filesystem. */
export interface RootfsUsage {
  readonly usedBytes: bigint;
  readonly inodesUsed: bigint;
  /** When it was measured. */
  readonly timestampNs: bigint;
  /** A path on the file system that holds it. */
  readonly mountpoint: string;
}

/** Where an image's files are to be, and as what. */
type RootfsPlace = RootfsView & Pick<RootfsPlan, "target">;

/** Containers' root filesystems: an image's layers below, a folder of the container's own on top. */
export interface RootfsStore extends AsyncDisposable {
  create(containerId: string, image: StoredImage, place: RootfsPlace): Promise<void>;
  mountVolume(containerId: string, image: StoredImage, place: RootfsPlace): Promise<void>;
  /** Gives a container with a root filesystem a folder of its own for a volume that its image declares. */
  mountDeclaredVolume(containerId: string, volume: DeclaredVolume, signal: AbortSignal): Promise<void>;
  remove(containerId: string, target: string, signal: AbortSignal): Promise<void>;
  ids(): readonly string[];
  usage(containerId: string): RootfsUsage | undefined;
}

export interface RootfsParts {
  readonly directory: string;
  /** Holds every layer. */
  readonly layersDirectory: string;
  /** Told as the place of the writable layers. */
  readonly mountpoint: string;
  readonly layers: LayerStore;
  readonly host: ImageHost;
  readonly log: Logger;
}

interface Rootfs {
  /** Of the image it was made of, and of those that are its volumes. */
  readonly holds: LayerHold[];
  size: TreeSize;
  measured: Instant;
  isMeasuring: boolean;
}

/** On the clock that people read, and on the one that nobody sets. */
interface Instant {
  readonly dateMs: number;
  readonly atMs: number;
}

interface State extends RootfsParts {
  readonly containers: Map<string, Rootfs>;
  readonly background: Set<Promise<unknown>>;
  readonly lock: KeyedLock;
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
const usageMaxAgeMs = 10_000;
const undoTimeoutMs = 30_000;
/** A writable layer with nothing in it. */
const emptySize: TreeSize = { usedBytes: 4096, inodes: 1 };

function checkId(containerId: string): void {
  if (!idPattern.test(containerId))
    throw new CriError(Code.InvalidArgument, `container id ${quote(containerId)} is malformed`);
}

/** Layers top first, each once: a layer that comes again higher up hides all that its lower copy has. */
function lowerLayers(layers: readonly { readonly diffId: Digest }[]): readonly Digest[] {
  return [...new Set(layers.map(({ diffId }) => diffId).reverse())];
}

function inBackground(state: State, work: Promise<unknown>): void {
  const quiet = work
    .catch((thrown: unknown) => state.log.debug({ error: String(thrown) }, "rootfs background work failed"))
    .finally(() => state.background.delete(quiet));
  state.background.add(quiet);
}

const now = (): Instant => ({ dateMs: Date.now(), atMs: performance.now() });
const never: Instant = { dateMs: 0, atMs: -Infinity };

function add(state: State, containerId: string, diffIds: readonly Digest[], measured: Instant): void {
  const hold = state.layers.holdMounted(diffIds);
  state.containers.set(containerId, { holds: [hold], size: emptySize, measured, isMeasuring: false });
}

async function remove(state: State, containerId: string, target: string, signal: AbortSignal): Promise<void> {
  await unmountRootfs(state.host, rootfsHome(state.directory, containerId), target, signal);
  const rootfs = state.containers.get(containerId);
  state.containers.delete(containerId);
  for (const hold of rootfs?.holds ?? []) inBackground(state, hold.release()); // may free a removed image's layers
}

async function create(state: State, containerId: string, image: StoredImage, place: RootfsPlace): Promise<void> {
  if (state.containers.has(containerId))
    throw new CriError(Code.AlreadyExists, `container ${quote(containerId)} has a root filesystem already`);
  const plan = { ...place, ...layersOf(state, image) };
  add(state, containerId, idsOf(plan), now());
  try {
    await mountRootfs(state.host, rootfsHome(state.directory, containerId), plan);
  } catch (thrown) {
    await remove(state, containerId, place.target, AbortSignal.timeout(undoTimeoutMs));
    if (thrown instanceof CriError) throw thrown;
    const why = thrown instanceof SyscallError ? `: ${thrown.message}` : "";
    throw new CriError(Code.Internal, `cannot mount the root filesystem of container ${quote(containerId)}${why}`, {
      cause: thrown,
    });
  }
}

/** @throws {CriError} `NotFound` where the image was removed since it was looked up. */
function layersOf(state: State, image: StoredImage): Pick<RootfsPlan, "layers" | "layersDirectory"> {
  const diffIds = lowerLayers(image.layers);
  if (!diffIds.every((diffId) => state.layers.get(diffId) !== undefined))
    throw new CriError(Code.NotFound, `image ${quote(image.id)} not found`);
  const layers = diffIds.map((diffId) => ({ diffId, path: state.layers.rootOf(diffId) }));
  return { layers, layersDirectory: state.layersDirectory };
}

function idsOf(plan: Pick<RootfsPlan, "layers">): readonly Digest[] {
  return plan.layers.map(({ diffId }) => diffId);
}

async function addVolume(state: State, containerId: string, image: StoredImage, place: RootfsPlace): Promise<void> {
  const rootfs = state.containers.get(containerId);
  if (rootfs === undefined) throw new CriError(Code.NotFound, `container ${quote(containerId)} has no root filesystem`);
  const plan = { ...place, ...layersOf(state, image) };
  rootfs.holds.push(state.layers.holdMounted(idsOf(plan)));
  const home = rootfsHome(state.directory, containerId);
  const held = [...new Set([...(await readRootfsLayers(home)), ...idsOf(plan)])];
  await mountVolume(state.host, home, { ...plan, held });
}

async function measure(state: State, containerId: string, rootfs: Rootfs): Promise<void> {
  rootfs.isMeasuring = true;
  try {
    const { measureTree } = state.host;
    const { upper, declaredVolumes } = rootfsHome(state.directory, containerId);
    const [own, volumes] = await Promise.all([measureTree(upper), measureTree(declaredVolumes)]);
    rootfs.size = { usedBytes: own.usedBytes + volumes.usedBytes, inodes: own.inodes + volumes.inodes };
  } finally {
    rootfs.isMeasuring = false;
    rootfs.measured = now();
  }
}

function usage(state: State, containerId: string): RootfsUsage | undefined {
  const rootfs = state.containers.get(containerId);
  if (rootfs === undefined) return undefined;
  const isOld = performance.now() - rootfs.measured.atMs > usageMaxAgeMs;
  if (isOld && !rootfs.isMeasuring) inBackground(state, measure(state, containerId, rootfs));
  return {
    usedBytes: BigInt(rootfs.size.usedBytes),
    inodesUsed: BigInt(rootfs.size.inodes),
    timestampNs: BigInt(rootfs.measured.dateMs || Date.now()) * 1_000_000n,
    mountpoint: state.mountpoint,
  };
}

/** Opens the store; containers that an earlier run left keep their layers until they are removed by name. */
export async function openRootfsStore(parts: RootfsParts): Promise<RootfsStore> {
  const state: State = { ...parts, containers: new Map(), background: new Set(), lock: createKeyedLock() };
  await mkdir(parts.directory, { recursive: true, mode: 0o700 });
  for (const containerId of await readdir(parts.directory))
    add(state, containerId, await readRootfsLayers(rootfsHome(parts.directory, containerId)), never);
  return {
    async create(containerId, image, place) {
      checkId(containerId);
      await state.lock.run(containerId, undefined, () => create(state, containerId, image, place));
    },
    async mountVolume(containerId, image, place) {
      await state.lock.run(containerId, undefined, () => addVolume(state, containerId, image, place));
    },
    async mountDeclaredVolume(containerId, volume, signal) {
      checkId(containerId);
      const home = rootfsHome(state.directory, containerId);
      await state.lock.run(containerId, signal, () => mountDeclaredVolume(state.host, home, volume, signal));
    },
    async remove(containerId, target, signal) {
      checkId(containerId);
      await state.lock.run(containerId, signal, () => remove(state, containerId, target, signal));
    },
    ids: () => [...state.containers.keys()],
    usage: (containerId) => usage(state, containerId),
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(state.background);
    },
  };
}
