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
  /** Resolves when the layer is there; whoever asks for one that is being unpacked waits for that. */
  ensure(diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void>;
  /** How many hold the layer. */
  holders(diffId: Digest): number;
  /** Says that the layer is damaged: whoever ensures it next replaces it. Nothing may be mounted on it. */
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

function hold(state: State, diffIds: readonly Digest[]): LayerHold {
  const { holders } = state;
  let held: ReadonlySet<Digest> = new Set(diffIds);
  for (const diffId of held) holders.set(diffId, (holders.get(diffId) ?? 0) + 1);
  return {
    async release() {
      const released = held;
      held = new Set();
      for (const diffId of released) {
        const left = (holders.get(diffId) ?? 1) - 1;
        if (left > 0) holders.set(diffId, left);
        else holders.delete(diffId);
      }
      await Promise.all([...released].map((diffId) => removeUnheld(state, diffId)));
    },
  };
}

async function add(state: State, diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void> {
  await state.removals.get(diffId);
  const isReplacement = state.condemned.has(diffId);
  state.layers.set(diffId, await state.files.add(diffId, signal, unpack, { isReplacement }));
  state.condemned.delete(diffId);
}

function isSound({ layers, condemned }: State, diffId: Digest): boolean {
  return layers.has(diffId) && !condemned.has(diffId);
}

async function ensure(state: State, diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void> {
  while (!isSound(state, diffId)) {
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
    condemned: new Set(),
    removals: new Map(),
    unpacking: createSharedWork({ lastWaits: true }),
    syncing: Promise.resolve(),
  };
  const { layers } = state;
  return {
    get: (diffId) => layers.get(diffId),
    rootOf: (diffId) => files.rootOf(diffId),
    hold: (diffIds) => hold(state, diffIds),
    ensure: (diffId, signal, unpack) => ensure(state, diffId, signal, unpack),
    holders: (diffId) => state.holders.get(diffId) ?? 0,
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
