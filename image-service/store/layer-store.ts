import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Logger } from "../../cri-api/index.ts";
import { type Digest, digestFileName, digestOfFileName } from "../digest.ts";
import type { ImageHost } from "../host.ts";
import { layerRootName } from "../layer/unpack.ts";
import { createSharedWork } from "../shared-work.ts";
import { type LayerInfo, type LayerRecord, parseLayerRecord } from "./layer-record.ts";

/** Keeps layers from being removed. */
export interface LayerHold {
  /** Lets go; resolves when what nobody else holds is gone from the disk. Idempotent. */
  release(): Promise<void>;
}

/** Fills an empty folder with a layer below `diff`. */
export type Unpack = (directory: string, signal: AbortSignal) => Promise<Omit<LayerInfo, "diffId">>;

/** Unpacked layers, each once, by the digest of their content. */
export interface LayerStore extends AsyncDisposable {
  get(diffId: Digest): LayerInfo | undefined;
  /** The folder that holds the layer's files. */
  rootOf(diffId: Digest): string;
  /** Holds layers that are there, or that are about to be. */
  hold(diffIds: readonly Digest[]): LayerHold;
  /** Resolves when the layer is there; whoever asks for one that is being unpacked waits for that. */
  ensure(diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void>;
  /** Removes what nobody holds. */
  sweep(): Promise<void>;
  usage(): { readonly usedBytes: number; readonly inodes: number };
  /** Writes the layers through to the disk and notes it, so that they survive a power cut. */
  makeDurable(): Promise<void>;
}

export interface LayerStoreParts {
  readonly directory: string;
  readonly bootId: string;
  readonly host: ImageHost;
  readonly log: Logger;
}

const recordName = "layer.json";
const maxRecordBytes = 64 << 10;
const leftoverPrefix = ".";

/** Reads what is on disk; removes what an earlier run or a power cut left unusable. */
async function loadLayers(parts: LayerStoreParts): Promise<Map<Digest, LayerRecord>> {
  const { directory, host, log } = parts;
  const layers = new Map<Digest, LayerRecord>();
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const diffId = digestOfFileName(name);
    const record = parseLayerRecord(await host.readFileBounded(join(path, recordName), maxRecordBytes));
    const isWhole = record !== undefined && (record.isDurable || record.bootId === parts.bootId);
    if (diffId !== undefined && isWhole && record.diffId === diffId) {
      layers.set(diffId, record);
      continue;
    }
    if (!name.startsWith(leftoverPrefix)) log.warn({ layer: name }, "layer was not written to its end, removing it");
    await host.removeTree(path);
  }
  return layers;
}

export async function openLayerStore(parts: LayerStoreParts): Promise<LayerStore> {
  const { directory, bootId, host, log } = parts;
  const layers = await loadLayers(parts);
  const holders = new Map<Digest, number>();
  const removals = new Map<Digest, Promise<void>>();
  const unpacking = createSharedWork<void>();
  const background = new Set<Promise<void>>();
  let syncing: Promise<void> | undefined;
  let usedBytes = 0;
  let inodes = 0;
  for (const layer of layers.values()) count(layer, 1);

  function count(layer: LayerInfo, sign: 1 | -1): void {
    usedBytes += sign * layer.usedBytes;
    inodes += sign * layer.inodes;
  }
  function pathOf(diffId: Digest): string {
    return join(directory, digestFileName(diffId));
  }
  function temporary(): string {
    return join(directory, `${leftoverPrefix}${randomUUID()}`);
  }

  async function removeFiles(diffId: Digest): Promise<void> {
    const trash = temporary();
    await rename(pathOf(diffId), trash); // in one step: a crash leaves the layer whole, or nothing that looks like it
    removals.delete(diffId);
    await host.removeTree(trash);
  }

  async function removeUnheld(diffId: Digest): Promise<void> {
    const layer = layers.get(diffId);
    if (layer === undefined || (holders.get(diffId) ?? 0) > 0) return;
    layers.delete(diffId);
    count(layer, -1);
    const removal = removeFiles(diffId);
    removals.set(diffId, removal);
    await removal;
  }

  async function add(diffId: Digest, signal: AbortSignal, unpack: Unpack): Promise<void> {
    await removals.get(diffId);
    const temp = temporary();
    await mkdir(temp, { mode: 0o700 });
    try {
      const info = await unpack(temp, signal);
      const { usedBytes, inodes, uncompressedBytes } = info;
      const record: LayerRecord = {
        schemaVersion: 1,
        diffId,
        usedBytes,
        inodes,
        uncompressedBytes,
        bootId,
        isDurable: false,
      };
      await writeFile(join(temp, recordName), JSON.stringify(record), { mode: 0o600 });
      signal.throwIfAborted();
      await rename(temp, pathOf(diffId));
      layers.set(diffId, record);
      count(record, 1);
    } catch (thrown) {
      await host.removeTree(temp);
      throw thrown;
    }
  }

  async function sync(): Promise<void> {
    const fresh = [...layers.values()].filter(({ isDurable }) => !isDurable);
    const sync = fresh.length === 0 ? undefined : await host.which("sync");
    if (sync === undefined) return;
    const signal = AbortSignal.timeout(600_000);
    const { status } = await host.run({ argv: [sync, "--file-system", directory], env: {}, signal });
    if (status.kind !== "exited" || status.code !== 0) return;
    for (const record of fresh) {
      if (layers.get(record.diffId) !== record) continue;
      const durable = { ...record, isDurable: true };
      layers.set(record.diffId, durable);
      await host
        .writeFileAtomically(join(pathOf(record.diffId), recordName), JSON.stringify(durable))
        .catch((thrown: unknown) => {
          if (layers.get(record.diffId) === durable) throw thrown; // else it was removed meanwhile
        });
    }
  }

  return {
    get: (diffId) => layers.get(diffId),
    rootOf: (diffId) => join(pathOf(diffId), layerRootName),
    hold(diffIds) {
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
          await Promise.all([...released].map(removeUnheld));
        },
      };
    },
    async ensure(diffId, signal, unpack) {
      while (!layers.has(diffId)) {
        let isOurs = false;
        try {
          await unpacking.join(diffId, signal, (shared) => {
            isOurs = true;
            return add(diffId, shared, unpack);
          });
        } catch (thrown) {
          signal.throwIfAborted();
          if (isOurs) throw thrown; // another pull's failure (its credentials, its bytes) says nothing about ours
        }
      }
    },
    async sweep() {
      await Promise.all([...layers.keys()].map(removeUnheld));
    },
    usage: () => ({ usedBytes, inodes }),
    async makeDurable() {
      const previous = syncing ?? Promise.resolve();
      const next = previous.then(sync).catch((thrown: unknown) => {
        log.warn({ error: String(thrown) }, "layers could not be written through to the disk");
      });
      syncing = next;
      background.add(next);
      await next.finally(() => background.delete(next));
    },
    async [Symbol.asyncDispose]() {
      await unpacking[Symbol.asyncDispose]();
      await Promise.allSettled([...background, ...removals.values()]);
    },
  };
}
