import type { Logger } from "../../cri-api/index.ts";
import type { Digest } from "../digest.ts";
import { createSharedWork, type SharedWork } from "../shared-work.ts";
import type { LayerFiles, Unpack } from "./layer-files.ts";
import type { LayerInfo, LayerRecord } from "./layer-record.ts";

/** Keeps layers from being removed. */
export interface LayerHold {
  /** Lets go; resolves when what nobody else holds is gone from the disk. Idempotent. */
  release(): Promise<void>;
}

/** Unpacked layers, each once, by the digest of their content. */
export interface LayerStore extends AsyncDisposable {
  get(diffId: Digest): LayerInfo | undefined;
  /** The folder that holds the layer's files. */
  rootOf(diffId: Digest): string;
  /** Holds layers that are there, or that are about to be. */
  hold(diffIds: readonly Digest[]): LayerHold;
  /** Holds layers that are mounted, or that are about to be: until it is released, they are not replaced either. */
  holdMounted(diffIds: readonly Digest[]): LayerHold;
  /** Resolves when the layer is there; whoever asks for one that is being unpacked waits for that. */
  ensure(diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void>;
  /** Whether a container may have it mounted. */
  isMounted(diffId: Digest): boolean;
  /** Says that the layer is damaged: whoever ensures it next replaces it, once nothing is mounted on it. */
  condemn(diffId: Digest): void;
  /** Whether the layer is there, and not known to be damaged. */
  isSound(diffId: Digest): boolean;
  /** Removes what nobody holds. */
  sweep(): Promise<void>;
  usage(): { readonly usedBytes: number; readonly inodes: number };
  /** Writes new layers through to the disk, in the background of everything else. Never rejects. */
  makeDurable(): Promise<void>;
}

interface State {
  readonly files: LayerFiles;
  readonly log: Logger;
  readonly layers: Map<Digest, LayerRecord>;
  readonly holders: Map<Digest, number>;
  /** Those of the holders that have it mounted. */
  readonly mounters: Map<Digest, number>;
  readonly condemned: Set<Digest>;
  /** Layers whose folder is about to vanish; a new one of the same digest has to wait. */
  readonly removals: Map<Digest, Promise<unknown>>;
  readonly unpacking: SharedWork<void>;
  /** The last write-through, or the one after it. */
  syncing: Promise<void>;
}

async function removeUnheld(state: State, diffId: Digest): Promise<void> {
  const { layers, holders, removals, files } = state;
  if ((holders.get(diffId) ?? 0) > 0 || !layers.delete(diffId)) return;
  state.condemned.delete(diffId);
  const removal = files.remove(diffId);
  removals.set(diffId, removal);
  const { freed } = await removal.finally(() => removals.delete(diffId));
  await freed;
}

function countUp(counts: Map<Digest, number>, diffId: Digest, by: 1 | -1): void {
  const count = (counts.get(diffId) ?? 0) + by;
  if (count > 0) counts.set(diffId, count);
  else counts.delete(diffId);
}

function hold(state: State, diffIds: readonly Digest[], counts: readonly Map<Digest, number>[]): LayerHold {
  let held: ReadonlySet<Digest> = new Set(diffIds);
  const count = (by: 1 | -1): void => {
    for (const diffId of held) for (const each of counts) countUp(each, diffId, by);
  };
  count(1);
  return {
    async release() {
      count(-1);
      const released = held;
      held = new Set();
      await Promise.all([...released].map((diffId) => removeUnheld(state, diffId)));
    },
  };
}

async function add(state: State, diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void> {
  await state.removals.get(diffId);
  const mayReplace = state.condemned.has(diffId) ? () => !state.mounters.has(diffId) : undefined;
  const record = await state.files.add(diffId, signal, unpack, { mayReplace });
  if (record === undefined) return; // a container has come to use it meanwhile
  state.layers.set(diffId, record);
  state.condemned.delete(diffId);
}

function isSound({ layers, condemned }: State, diffId: Digest): boolean {
  return layers.has(diffId) && !condemned.has(diffId);
}

/** A damaged layer stays as it is for as long as a container stands on it: its files would vanish. */
function isThere(state: State, diffId: Digest): boolean {
  return isSound(state, diffId) || (state.layers.has(diffId) && state.mounters.has(diffId));
}

async function ensure(state: State, diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void> {
  while (!isThere(state, diffId)) {
    let isOurs = false;
    try {
      await state.unpacking.join(diffId, signal, (shared) => {
        isOurs = true;
        return add(state, diffId, shared, unpack);
      });
    } catch (thrown) {
      signal.throwIfAborted();
      if (isOurs) throw thrown; // another pull's failure (its credentials, its bytes) says nothing about ours
    }
  }
}

async function sync({ layers, files, log }: State): Promise<void> {
  try {
    const isCurrent = (record: LayerRecord): boolean => layers.get(record.diffId) === record;
    for (const record of await files.makeDurable([...layers.values()], isCurrent))
      if (layers.has(record.diffId)) layers.set(record.diffId, record);
  } catch (thrown) {
    log.warn({ error: String(thrown) }, "layers could not be written through to the disk");
  }
}

export async function openLayerStore(files: LayerFiles, log: Logger): Promise<LayerStore> {
  const state: State = {
    files,
    log,
    layers: new Map((await files.load()).map((record) => [record.diffId, record])),
    holders: new Map(),
    mounters: new Map(),
    condemned: new Set(),
    removals: new Map(),
    unpacking: createSharedWork({ lastWaits: true }),
    syncing: Promise.resolve(),
  };
  const { layers, holders, mounters } = state;
  return {
    get: (diffId) => layers.get(diffId),
    rootOf: (diffId) => files.rootOf(diffId),
    hold: (diffIds) => hold(state, diffIds, [holders]),
    holdMounted: (diffIds) => hold(state, diffIds, [holders, mounters]),
    ensure: (diffId, signal, unpack) => ensure(state, diffId, signal, unpack),
    isMounted: (diffId) => mounters.has(diffId),
    condemn: (diffId) => void state.condemned.add(diffId),
    isSound: (diffId) => isSound(state, diffId),
    async sweep() {
      await Promise.all([...layers.keys()].map((diffId) => removeUnheld(state, diffId)));
    },
    usage() {
      let [usedBytes, inodes] = [0, 0];
      for (const layer of layers.values()) {
        usedBytes += layer.usedBytes;
        inodes += layer.inodes;
      }
      return { usedBytes, inodes };
    },
    async makeDurable() {
      state.syncing = state.syncing.then(() => sync(state));
      await state.syncing;
    },
    async [Symbol.asyncDispose]() {
      await state.unpacking[Symbol.asyncDispose]();
      await state.syncing;
      await Promise.allSettled(state.removals.values());
    },
  };
}
