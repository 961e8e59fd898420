import { randomUUID } from "node:crypto";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import type { Logger } from "../../cri-api/index.ts";
import { type Digest, digestFileName, digestOfFileName } from "../digest.ts";
import type { ImageHost } from "../host.ts";
import { layerRootName } from "../layer/skeleton.ts";
import { type LayerInfo, type LayerRecord, parseLayerRecord } from "./layer-record.ts";

/** Fills an empty folder with a layer below `diff`. */
export type Unpack = (directory: string, signal: AbortSignal) => Promise<Omit<LayerInfo, "diffId">>;

/**
 * Layers on disk, one folder each. A layer appears and disappears by a rename, so a killed daemon leaves it whole or
 * under a name that the next start removes. Nothing is synced on the way: after a power cut, a layer counts only if it
 * has been written through since ({@link LayerFiles.makeDurable}) or the same boot still runs.
 */
export interface LayerFiles {
  /** Reads what is there and removes what is unusable. @throws {NewerSchemaError} */
  load(): Promise<readonly LayerRecord[]>;
  /** The folder that holds the layer's files. */
  rootOf(diffId: Digest): string;
  /**
   * Leaves nothing behind when it rejects; a layer that it is to replace stays then. Of such a one `mayReplace` is asked
   * when the new one is ready: if it says no, the old one stays and there is no record.
   */
  add(
    diffId: Digest,
    signal: AbortSignal,
    unpack: Unpack,
    options: { readonly mayReplace: (() => boolean) | undefined },
  ): Promise<LayerRecord | undefined>;
  /** Takes the layer out of sight; the answer's `freed` resolves when its blocks are free. */
  remove(diffId: Digest): Promise<{ readonly freed: Promise<void> }>;
  /** Writes the layers through to the disk and notes it in each one that is still current then. */
  makeDurable(
    records: readonly LayerRecord[],
    isCurrent: (record: LayerRecord) => boolean,
  ): Promise<readonly LayerRecord[]>;
}

export interface LayerFilesParts {
  readonly directory: string;
  readonly bootId: string;
  readonly host: ImageHost;
  readonly log: Logger;
}

const recordName = "layer.json";
/** The record's own block. */
const recordBytes = 4096;
const maxRecordBytes = 64 << 10;
const temporaryPrefix = ".";
const syncTimeoutMs = 600_000;

async function loadAll({ directory, bootId, host, log }: LayerFilesParts): Promise<readonly LayerRecord[]> {
  const records: LayerRecord[] = [];
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await host.spreadFolders(directory);
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const record = parseLayerRecord(await host.readFileBounded(join(path, recordName), maxRecordBytes));
    const isWhole = record !== undefined && (record.isDurable || record.bootId === bootId);
    if (isWhole && record.diffId === digestOfFileName(name)) {
      await removeHalfWritten(path);
      records.push(record);
      continue;
    }
    if (!name.startsWith(temporaryPrefix)) log.warn({ layer: name }, "layer was not written to its end, removing it");
    await host.removeTree(path);
  }
  return records;
}

/** What an atomic write of the record left that a crash cut short. */
async function removeHalfWritten(layer: string): Promise<void> {
  const left = (await readdir(layer)).filter((name) => name.startsWith(`.${recordName}.`));
  await Promise.all(left.map((name) => rm(join(layer, name), { force: true })));
}

async function syncFilesystem({ directory, host }: LayerFilesParts): Promise<boolean> {
  const sync = await host.which("sync");
  if (sync === undefined) return false;
  const signal = AbortSignal.timeout(syncTimeoutMs);
  const { status } = await host.run({ argv: [sync, "--file-system", directory], env: {}, signal });
  return status.kind === "exited" && status.code === 0;
}

export function createLayerFiles(parts: LayerFilesParts): LayerFiles {
  const { directory, bootId, host } = parts;
  const pathOf = (diffId: Digest): string => join(directory, digestFileName(diffId));
  const temporary = (): string => join(directory, `${temporaryPrefix}${randomUUID()}`);

  return {
    load: () => loadAll(parts),
    rootOf: (diffId) => join(pathOf(diffId), layerRootName),
    async add(diffId, signal, unpack, { mayReplace }) {
      const path = temporary();
      await mkdir(path, { mode: 0o700 });
      try {
        const { usedBytes, inodes, uncompressedBytes } = await unpack(path, signal);
        const info = { diffId, usedBytes: usedBytes + recordBytes, inodes: inodes + 1, uncompressedBytes };
        const record: LayerRecord = { schemaVersion: 1, ...info, bootId, isDurable: false };
        await writeFile(join(path, recordName), JSON.stringify(record), { mode: 0o600 });
        signal.throwIfAborted();
        const old = temporary();
        if (mayReplace?.() === false) {
          await host.removeTree(path);
          return undefined;
        }
        if (mayReplace !== undefined) await rename(pathOf(diffId), old); // a crash here loses the layer, which was damaged
        await rename(path, pathOf(diffId));
        await host.removeTree(old);
        return record;
      } catch (thrown) {
        await host.removeTree(path);
        throw thrown;
      }
    },
    async remove(diffId) {
      const trash = temporary();
      await rename(pathOf(diffId), trash);
      return { freed: host.removeTree(trash) };
    },
    async makeDurable(records, isCurrent) {
      const durable: LayerRecord[] = [];
      const fresh = records.filter(({ isDurable }) => !isDurable);
      if (fresh.length === 0 || !(await syncFilesystem(parts))) return durable;
      for (const record of fresh) {
        if (!isCurrent(record)) continue;
        const changed = { ...record, isDurable: true };
        try {
          await host.writeFileAtomically(join(pathOf(record.diffId), recordName), JSON.stringify(changed));
          durable.push(changed);
        } catch (thrown) {
          if (isCurrent(record)) throw thrown; // else it was removed in these milliseconds
        }
      }
      return durable;
    },
  };
}
