import { randomUUID } from "node:crypto";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";

import { type berth, type Call, Code, CriError, type Init } from "../cri-api/index.ts";
import { archivedBytes } from "./archive/contents.ts";
import { manifestOf, plainLayerType } from "./archive/manifest-of.ts";
import type { NamedImage } from "./archive/names.ts";
import type { ImageHost } from "./host.ts";
import { formatPlatform, parsePlatform, type Platform } from "./platform.ts";
import type { PullLimits } from "./registry/limits.ts";
import { storageFailure } from "./storage-failure.ts";
import { type ImageLayer, type ImageName, repoDigestsOf, repoTagsOf, type StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";
import type { LayerStore } from "./store/layer-store.ts";
import type { ArchiveContents } from "./worker/protocol.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

export interface ImportParts {
  /** Archives are kept there while they are read. */
  readonly directory: string;
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly pool: WorkerPool;
  readonly limits: PullLimits;
  readonly platform: Platform;
  readonly host: ImageHost;
}

type Requests = AsyncIterable<berth.ImportImagesRequest>;

const what = "cannot import the archive";

/** Writes the archive to `path` as it comes, and says what was asked for. */
async function receive(requests: Requests, path: string, limits: PullLimits): Promise<berth.ImportOptions | undefined> {
  let options: berth.ImportOptions | undefined;
  let bytes = 0;
  await using file = await open(path, "wx", 0o600);
  for await (const request of requests) {
    options ??= request.options ?? undefined;
    bytes += request.chunk.length;
    if (bytes > limits.archiveBytes)
      throw new CriError(Code.InvalidArgument, `${what}: it is larger than ${limits.archiveBytes} bytes`);
    await file.writeFile(request.chunk);
  }
  if (bytes === 0) throw new CriError(Code.InvalidArgument, `${what}: it is empty`);
  return options;
}

/** Makes the layers of all images present; the first failure ends the others. */
async function unpackLayers(parts: ImportParts, contents: ArchiveContents, signal: AbortSignal): Promise<void> {
  const unique = new Map(contents.images.flatMap(({ layers }) => layers.map((layer) => [layer.diffId, layer])));
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const { path } = contents;
  const work = Array.from(unique.values(), (layer) =>
    parts.layers.ensure(layer.diffId, either, (directory, shared) =>
      parts.pool.run({ kind: "unpack", what, path, layer, directory, limits: parts.limits }, { signal: shared }),
    ),
  );
  try {
    await Promise.all(work);
  } catch (thrown) {
    stop.abort();
    await Promise.allSettled(work);
    throw thrown;
  }
}

/** The layers and digests of an image; a docker archive has no manifest, so it gets the one that export would give. */
function recordOf(
  { layers }: ImportParts,
  archived: NamedImage,
): {
  readonly layers: readonly ImageLayer[];
  readonly digests: NonNullable<NamedImage["digests"]>;
} {
  const sizeOf = ({ diffId }: { diffId: ImageLayer["diffId"] }): number => layers.get(diffId)?.uncompressedBytes ?? 0;
  const stored = archived.layers.map((layer) => ({
    diffId: layer.diffId,
    digest: layer.blob?.digest ?? layer.diffId,
    mediaType: layer.blob?.mediaType ?? plainLayerType,
    size: layer.blob === undefined ? sizeOf(layer) : archivedBytes(layer),
  }));
  if (archived.digests !== undefined) return { layers: stored, digests: archived.digests };
  const plain = archived.layers.map((layer) => ({ diffId: layer.diffId, sizeBytes: sizeOf(layer) }));
  const { digest } = manifestOf({ id: archived.id, configJson: archived.configJson, layers: plain });
  return { layers: stored, digests: { target: digest, manifest: digest } };
}

/** An image that is there now, and the names that it has from this archive. */
interface Imported {
  readonly image: StoredImage;
  readonly names: readonly ImageName[];
}

async function putImage(parts: ImportParts, archived: NamedImage): Promise<Imported> {
  const { type, id, configJson, isForeign, given } = archived;
  const { layers, digests } = recordOf(parts, archived);
  const record = { type, id, manifestDigest: digests.manifest, layers, configJson };
  const { target, manifest } = digests;
  const source = isForeign ? { digest: manifest, index: target } : { digest: target };
  const names = given.map((name): ImageName => ({ ...name, ...source, pulledAtMs: Date.now() }));
  let image: StoredImage | undefined;
  // What is known of an image that is there already is more than an archive tells: signatures, for one.
  for (const name of names) image = (await parts.images.addName(id, name)) ?? (await parts.images.put(record, name));
  if (image === undefined) throw new CriError(Code.Internal, `${what}: image ${id} has no name`);
  return { image, names };
}

/** Gives each image once it is there. */
async function* store(parts: ImportParts, call: Call, contents: ArchiveContents): AsyncGenerator<Imported, void> {
  const { images } = contents;
  const hold = parts.layers.hold(images.flatMap(({ layers }) => layers.map(({ diffId }) => diffId)));
  try {
    await unpackLayers(parts, contents, call.signal);
    call.signal.throwIfAborted();
    for (const archived of images) yield await putImage(parts, archived);
  } finally {
    void parts.layers.makeDurable();
    await hold.release();
  }
}

/**
 * ImportImages: takes an archive whole, then unpacks what is wanted of it. Nothing shows before all layers of all its
 * images are there, and nothing is left of an archive that is refused. From then on each image comes by itself: those
 * that were told of stay, should there be no room for the next one's record.
 */
export async function* importImages(
  parts: ImportParts,
  call: Call,
  requests: Requests,
): AsyncGenerator<Init<berth.ImportImagesResponse>, void> {
  const folder = join(parts.directory, randomUUID());
  await mkdir(folder, { mode: 0o700 });
  try {
    const path = join(folder, "archive");
    const options = await receive(requests, path, parts.limits);
    const platform = options?.platform ? parsePlatform(options.platform) : parts.platform;
    const selection = { platform, isAll: options?.allPlatforms ?? false, limits: parts.limits };
    const job = { kind: "read-archive", what, path, selection, name: options?.name ?? "" } as const;
    const contents = await parts.pool.run(job, { signal: call.signal });
    for await (const { image, names } of store(parts, call, contents)) {
      const given = [...repoTagsOf(names), ...repoDigestsOf(names.filter(({ tag }) => tag === undefined))];
      call.log.info({ imageId: image.id, names: given }, "image imported");
      const spelled = image.type === "image" ? formatPlatform(image.platform) : "";
      yield { imageId: image.id, names: given, platform: spelled };
    }
  } catch (thrown) {
    call.signal.throwIfAborted();
    throw storageFailure(thrown, what, "stored");
  } finally {
    await parts.host.removeTree(folder);
  }
}
