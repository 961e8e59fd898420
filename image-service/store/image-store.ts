import { createKeyedLock, type KeyedLock } from "../../native/index.ts";
import type { Digest } from "../digest.ts";
import type { IsPinned } from "../pinned.ts";
import type { ImageFiles } from "./image-files.ts";
import { mergeName, removeTag, settleTags } from "./image-names.ts";
import { type ImageName, type ImageRecord, imageOf, type StoredImage } from "./image-record.ts";
import { type ImageSignature, mergeSignatures } from "../trust/signature.ts";
import type { LayerHold, LayerStore } from "./layer-store.ts";

/** The images that were pulled. Reads answer from memory; writes are on disk before they show. */
export interface ImageStore {
  list(): readonly StoredImage[];
  byId(id: string): StoredImage | undefined;
  /** Images whose id begins so (hex, without algorithm). */
  byIdPrefix(hex: string): readonly StoredImage[];
  /** By `repository:tag` or `repository@digest`. */
  byName(name: string): StoredImage | undefined;
  /** What a user's name may stand for, in full spelling: several for a short name. */
  namesFor(text: string): readonly string[];
  /** Adds an image, or a name to one that is there; a tag that pointed elsewhere moves. */
  put(image: Omit<ImageRecord, "schemaVersion" | "names">, name: ImageName): Promise<StoredImage>;
  /** Adds a name to an image that is there, and signatures that came with it. */
  addName(id: Digest, name: ImageName, signatures?: readonly ImageSignature[]): Promise<StoredImage | undefined>;
  /** Removes an image under all its names; resolves when its bytes are freed. Idempotent, also while it runs. */
  remove(id: string): Promise<void>;
  /** The removal under way of an image that had this id or name. */
  removalOf(idOrName: string): Promise<void> | undefined;
  /** The config document, as the registry served it. */
  readConfig(id: Digest): Promise<string | undefined>;
}

interface State {
  readonly files: ImageFiles;
  readonly layers: LayerStore;
  readonly isPinned: IsPinned;
  readonly images: Map<string, StoredImage>;
  readonly holds: Map<string, LayerHold>;
  /** Ids by `repository:tag` and `repository@digest`. */
  readonly ids: Map<string, string>;
  readonly removals: Map<string, { readonly names: ReadonlySet<string>; readonly done: Promise<void> }>;
  readonly lock: KeyedLock;
}

function namesOf(image: StoredImage): readonly string[] {
  return [...image.repoTags, ...image.repoDigests];
}

/** Writes change several records and their index together, so they come one after the other. */
function exclusively<T>({ lock }: State, work: () => Promise<T>): Promise<T> {
  return lock.run("images", undefined, work);
}

function show(state: State, record: ImageRecord): StoredImage {
  const { layers, images, holds, ids } = state;
  const image = imageOf(record, (diffId) => layers.get(diffId)?.usedBytes ?? 0, state.isPinned);
  images.set(image.id, image);
  if (!holds.has(image.id)) holds.set(image.id, layers.hold(image.layers.map(({ diffId }) => diffId)));
  for (const name of namesOf(image)) ids.set(name, image.id);
  return image;
}

/** Takes the tag from the image that had it. A crash before this is settled at the next start. */
async function takeTag(state: State, name: ImageName, from: string | undefined): Promise<void> {
  const old = from === undefined ? undefined : state.images.get(from);
  const record = old === undefined ? undefined : await state.files.read(old.id);
  if (record === undefined) return;
  const changed = { ...record, names: removeTag(record.names, name) };
  await state.files.write(changed);
  if (state.images.has(changed.id)) show(state, changed);
}

async function write(state: State, record: ImageRecord, name: ImageName): Promise<StoredImage> {
  const previous = name.tag === undefined ? undefined : state.ids.get(`${name.repository}:${name.tag}`);
  await state.files.write(record);
  const image = show(state, record);
  if (previous !== record.id) await takeTag(state, name, previous);
  return image;
}

async function removeNow(state: State, image: StoredImage): Promise<void> {
  const { images, ids, holds, files } = state;
  images.delete(image.id);
  for (const name of namesOf(image)) if (ids.get(name) === image.id) ids.delete(name);
  const hold = holds.get(image.id);
  holds.delete(image.id);
  await exclusively(state, async () => {
    if (!images.has(image.id)) await files.remove(image.id); // else it was pulled again before its turn
  });
  await hold?.release();
}

async function remove(state: State, id: string): Promise<void> {
  const { images, removals } = state;
  const image = images.get(id);
  if (image === undefined) {
    await removals.get(id)?.done;
    return;
  }
  const done = removeNow(state, image).finally(() => removals.delete(id));
  removals.set(id, { names: new Set([id, ...namesOf(image)]), done });
  await done;
}

export async function openImageStore(
  files: ImageFiles,
  layers: LayerStore,
  isPinned: IsPinned,
  namesFor: ImageStore["namesFor"],
): Promise<ImageStore> {
  const state: State = {
    files,
    layers,
    isPinned,
    images: new Map(),
    holds: new Map(),
    ids: new Map(),
    removals: new Map(),
    lock: createKeyedLock(),
  };
  const { images, ids, removals } = state;
  const records = await files.load((record) => record.layers.every(({ diffId }) => layers.get(diffId) !== undefined));
  for (const record of settleTags(records)) show(state, record);

  return {
    list: () => [...images.values()],
    byId: (id) => images.get(id),
    byIdPrefix: (hex) => [...images.values()].filter(({ id }) => id.slice(id.indexOf(":") + 1).startsWith(hex)),
    byName: (name) => images.get(ids.get(name) ?? ""),
    namesFor,
    put: (image, name) =>
      exclusively(state, async () => {
        const known = images.get(image.id);
        const names = mergeName(known?.names ?? [], name);
        const signatures = mergeSignatures(known?.signatures ?? [], image.signatures ?? []);
        return await write(state, { schemaVersion: 1, ...image, names, signatures }, name);
      }),
    addName: (id, name, added = []) =>
      exclusively(state, async () => {
        const record = images.has(id) ? await files.read(id) : undefined;
        if (record === undefined || !images.has(id)) return undefined;
        const signatures = mergeSignatures(record.signatures ?? [], added);
        return await write(state, { ...record, names: mergeName(record.names, name), signatures }, name);
      }),
    remove: (id) => remove(state, id),
    removalOf: (idOrName) => [...removals.values()].find(({ names }) => names.has(idOrName))?.done,
    async readConfig(id) {
      return (await files.read(id))?.configJson;
    },
  };
}
