import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import type { Logger } from "../../cri-api/index.ts";
import { createKeyedLock } from "../../native/index.ts";
import { type Digest, digestFileName } from "../digest.ts";
import type { ImageHost } from "../host.ts";
import { type ImageName, type ImageRecord, imageOf, parseImageRecord, type StoredImage } from "./image-record.ts";
import type { LayerHold, LayerStore } from "./layer-store.ts";

/** The images that were pulled. Reads answer from memory; writes are on disk before they show. */
export interface ImageStore {
  list(): readonly StoredImage[];
  byId(id: string): StoredImage | undefined;
  /** Images whose id begins so (hex, without algorithm). */
  byIdPrefix(hex: string): readonly StoredImage[];
  /** By `repository:tag` or `repository@digest`. */
  byName(name: string): StoredImage | undefined;
  /** Adds an image, or a name to one that is there; a tag that pointed elsewhere moves. */
  put(image: Omit<ImageRecord, "schemaVersion" | "names">, name: ImageName): Promise<StoredImage>;
  /** Adds a name to an image that is there. */
  addName(id: Digest, name: ImageName): Promise<StoredImage | undefined>;
  /** Removes an image under all its names; resolves when its bytes are freed. Idempotent, also while it runs. */
  remove(id: string): Promise<void>;
  /** The removal under way of an image that had this id or name. */
  removalOf(idOrName: string): Promise<void> | undefined;
  /** The config document, as the registry served it. */
  readConfig(id: Digest): Promise<string | undefined>;
}

export interface ImageStoreParts {
  readonly directory: string;
  readonly layers: LayerStore;
  readonly host: ImageHost;
  readonly log: Logger;
}

const suffix = ".json";
const maxRecordBytes = 32 << 20;

async function loadRecords(parts: ImageStoreParts): Promise<ImageRecord[]> {
  const { directory, host, log, layers } = parts;
  const records: ImageRecord[] = [];
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    if (name.startsWith(".")) await rm(path, { force: true }); // a write that never ended
    if (name.startsWith(".") || !name.endsWith(suffix)) continue;
    try {
      const record = parseImageRecord((await host.readFileBounded(path, maxRecordBytes)) ?? Buffer.alloc(0));
      const isWhole = record.layers.every(({ diffId }) => layers.get(diffId) !== undefined);
      if (isWhole) records.push(record);
      else await rm(path);
      if (!isWhole) log.warn({ imageId: record.id }, "image has lost layers, it will have to be pulled again");
    } catch (thrown) {
      log.warn({ file: name, error: String(thrown) }, "image record cannot be read, setting it aside");
      await rename(path, `${path}.corrupt`);
    }
  }
  return records;
}

function mergeName(names: readonly ImageName[], name: ImageName): readonly ImageName[] {
  const others = names.filter(
    ({ repository, tag, digest }) =>
      repository !== name.repository || digest !== name.digest || (tag !== undefined && tag !== name.tag),
  );
  // The tag's earlier digest really existed: it stays, without the tag.
  const kept = others.map((other) =>
    other.repository === name.repository && other.tag !== undefined && other.tag === name.tag ? untag(other) : other,
  );
  return [...kept, name];
}

function untag({ repository, digest, pulledAtMs }: ImageName): ImageName {
  return { repository, digest, pulledAtMs };
}

/** Names of one image, with the newest claim to each tag winning over other images' older ones. */
function settleTags(records: readonly ImageRecord[]): readonly ImageRecord[] {
  const newest = new Map<string, number>();
  for (const { names } of records)
    for (const { repository, tag, pulledAtMs } of names) {
      const key = `${repository}:${tag}`;
      newest.set(key, Math.max(newest.get(key) ?? 0, pulledAtMs));
    }
  return records.map((record) => ({
    ...record,
    names: record.names.map((name) =>
      newest.get(`${name.repository}:${name.tag}`) === name.pulledAtMs ? name : untag(name),
    ),
  }));
}

export async function openImageStore(parts: ImageStoreParts): Promise<ImageStore> {
  const { directory, layers, host } = parts;
  const images = new Map<string, StoredImage>();
  const holds = new Map<string, LayerHold>();
  const byName = new Map<string, string>();
  const lock = createKeyedLock();
  const removals = new Map<string, { readonly names: ReadonlySet<string>; readonly done: Promise<void> }>();

  function pathOf(id: Digest): string {
    return join(directory, `${digestFileName(id)}${suffix}`);
  }
  function show(record: ImageRecord): StoredImage {
    const image = imageOf(record, (diffId) => layers.get(diffId)?.usedBytes ?? 0);
    images.set(image.id, image);
    if (!holds.has(image.id)) holds.set(image.id, layers.hold(image.layers.map(({ diffId }) => diffId)));
    for (const name of [...image.repoTags, ...image.repoDigests]) byName.set(name, image.id);
    return image;
  }
  async function save(record: ImageRecord): Promise<void> {
    await host.writeFileAtomically(pathOf(record.id), JSON.stringify(record));
  }
  async function readRecord(id: Digest): Promise<ImageRecord | undefined> {
    const bytes = await host.readFileBounded(pathOf(id), maxRecordBytes);
    return bytes === undefined ? undefined : parseImageRecord(bytes);
  }

  /** Takes the tag from the image that had it. A crash before this is settled at the next start. */
  async function moveTag(name: ImageName, from: string | undefined, to: Digest): Promise<void> {
    const old = from === undefined || from === to ? undefined : images.get(from);
    const record = old === undefined ? undefined : await readRecord(old.id);
    if (record === undefined || !images.has(record.id)) return;
    const names = record.names.map((other) =>
      other.repository === name.repository && other.tag === name.tag ? untag(other) : other,
    );
    await save({ ...record, names });
    if (images.has(record.id)) show({ ...record, names });
  }

  async function write(record: ImageRecord, name: ImageName): Promise<StoredImage> {
    const key = `${name.repository}:${name.tag}`;
    const previous = name.tag === undefined ? undefined : byName.get(key);
    await save(record);
    const image = show(record);
    await moveTag(name, previous, record.id);
    return image;
  }

  /** Writes change several records and their index together. */
  async function exclusively<T>(work: () => Promise<T>): Promise<T> {
    return await lock.run("images", undefined, work);
  }

  async function removeNow(image: StoredImage): Promise<void> {
    images.delete(image.id);
    for (const name of [...image.repoTags, ...image.repoDigests])
      if (byName.get(name) === image.id) byName.delete(name);
    const hold = holds.get(image.id);
    holds.delete(image.id);
    await exclusively(async () => {
      if (!images.has(image.id)) await rm(pathOf(image.id), { force: true }); // else it has been pulled again
    });
    await hold?.release();
  }

  for (const record of settleTags(await loadRecords(parts))) show(record);

  return {
    list: () => [...images.values()],
    byId: (id) => images.get(id),
    byIdPrefix: (hex) => [...images.values()].filter(({ id }) => id.slice(id.indexOf(":") + 1).startsWith(hex)),
    byName: (name) => images.get(byName.get(name) ?? ""),
    put: (image, name) =>
      exclusively(async () => {
        const names = mergeName(images.get(image.id)?.names ?? [], name);
        return await write({ schemaVersion: 1, ...image, names }, name);
      }),
    addName: (id, name) =>
      exclusively(async () => {
        const record = images.has(id) ? await readRecord(id) : undefined;
        if (record === undefined || !images.has(id)) return undefined;
        return await write({ ...record, names: mergeName(record.names, name) }, name);
      }),
    async remove(id) {
      const image = images.get(id);
      if (image === undefined) return await removals.get(id)?.done;
      const done = removeNow(image);
      removals.set(id, { names: new Set([id, ...image.repoTags, ...image.repoDigests]), done });
      await done.finally(() => removals.delete(id));
    },
    removalOf: (idOrName) => [...removals.values()].find(({ names }) => names.has(idOrName))?.done,
    async readConfig(id) {
      return (await readRecord(id))?.configJson;
    },
  };
}
