import { once } from "node:events";
import { dirname } from "node:path";
import { PassThrough } from "node:stream";

import { type berth, type Call, Code, CriError, type Init } from "../cri-api/index.ts";
import { blobPath } from "./archive/archive.ts";
import { artifactOf } from "./archive/artifact-of.ts";
import { manifestOf } from "./archive/manifest-of.ts";
import { archiveEnd, fileHeader, paddingOf, smallFile } from "./archive/tar-writer.ts";
import { type Digest, digestOf } from "./digest.ts";
import { findImage } from "./image-find.ts";
import { formatPlatform } from "./platform.ts";
import { quote } from "./reference.ts";
import { type ArtifactFile, mediaTypes } from "./registry/manifest.ts";
import type { PullLimits } from "./registry/limits.ts";
import { type ImageName, repoTagsOf, type StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";
import type { LayerStore } from "./store/layer-store.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

export interface ExportParts {
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly pool: WorkerPool;
  readonly limits: PullLimits;
}

/** A blob that is made of a layer on the disk: of its archive, or of one of an artifact's files. */
interface LayerBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly diffId: Digest;
  readonly file?: ArtifactFile;
}

type SmallBlob = readonly [digest: Digest, content: string];

/** An image as the archive has it. */
interface Exported {
  readonly image: StoredImage;
  readonly manifest: ReturnType<typeof manifestOf>;
  readonly smallBlobs: readonly SmallBlob[];
  readonly layerBlobs: readonly LayerBlob[];
}

/** What goes under some tags: one image, or those of several platforms, first the one that the tags stand for here. */
interface Wanted {
  readonly images: readonly [StoredImage, ...StoredImage[]];
  readonly tags: readonly string[];
}

/** The image and those of other platforms that came under the same index, by platform. */
function platformsOf(images: ImageStore, image: StoredImage, { index, digest }: ImageName): Wanted["images"] {
  const isOfIndex = (name: ImageName): boolean => (name.index ?? name.digest) === (index ?? digest);
  const others = images.list().filter(({ id, names }) => id !== image.id && names.some(isOfIndex));
  return [image, ...others.sort((a, b) => (formatPlatform(a.platform) < formatPlatform(b.platform) ? -1 : 1))];
}

/** Under the tag it was asked for, or all its tags when that was an id or a digest. */
function wantedOf({ images }: ExportParts, text: string, allPlatforms: boolean): readonly Wanted[] {
  const image = findImage(images, text);
  if (image === undefined) throw new CriError(Code.NotFound, `image ${quote(text)} not found`);
  const spelled = isId(text) ? [] : images.namesFor(text);
  const asked = image.repoTags.filter((tag) => spelled.includes(tag));
  const tags = asked.length > 0 ? asked : image.repoTags;
  if (!allPlatforms) return [{ images: [image], tags }];
  const named = image.names.map((name) => ({ name, tags: repoTagsOf([name]).filter((tag) => tags.includes(tag)) }));
  return named
    .filter((each) => each.tags.length > 0 || tags.length === 0)
    .map((each) => ({ images: platformsOf(images, image, each.name), tags: each.tags }));
}

/** What was asked for, each image or group of platforms once. */
function findWanted(parts: ExportParts, request: berth.ExportImagesRequest): readonly Wanted[] {
  if (request.images.length === 0) throw new CriError(Code.InvalidArgument, "no image to export was named");
  const wanted = new Map<string, Wanted>();
  for (const { images, tags } of request.images.flatMap((text) => wantedOf(parts, text, request.allPlatforms))) {
    const key = images.map(({ id }) => id).join();
    wanted.set(key, { images, tags: [...new Set([...(wanted.get(key)?.tags ?? []), ...tags])] });
  }
  return [...wanted.values()];
}

function isId(text: string): boolean {
  return /^(?:sha256:)?[0-9a-f]{3,64}$/.test(text);
}

/** The config of artifacts that have none. */
const emptyConfig = "{}";
const emptyDigest = digestOf(emptyConfig, undefined);

/** An artifact is exported as it is, if no blob is wanted that was not kept: only its named files are. */
function describeArtifact(image: StoredImage, json: string): Exported {
  const { files, others } = artifactOf(json);
  const lost = others.find(({ digest }) => digest !== emptyDigest);
  if (lost !== undefined) {
    const what = `${JSON.stringify(lost.mediaType.slice(0, 128))} (${lost.digest})`;
    const why = `its blob ${what} is no named file, and was not kept`;
    throw new CriError(Code.FailedPrecondition, `artifact ${quote(image.id)} cannot be exported: ${why}`);
  }
  return {
    image,
    manifest: { json, digest: image.id },
    smallBlobs: [
      [image.id, json],
      [emptyDigest, emptyConfig],
    ],
    layerBlobs: files.map((file) => ({ digest: file.digest, sizeBytes: file.size, diffId: image.id, file })),
  };
}

async function describe(parts: ExportParts, image: StoredImage): Promise<Exported> {
  const configJson = await parts.images.readConfig(image.id);
  if (configJson === undefined) throw new CriError(Code.NotFound, `image ${quote(image.id)} not found`);
  if (image.type === "artifact") return describeArtifact(image, configJson);
  const layerBlobs = image.layers.map(({ diffId }) => ({
    digest: diffId,
    diffId,
    sizeBytes: parts.layers.get(diffId)?.uncompressedBytes ?? 0,
  }));
  const manifest = manifestOf({ id: image.id, configJson, layers: layerBlobs });
  const smallBlobs = [[image.id, configJson] as const, [manifest.digest, manifest.json] as const];
  return { image, manifest, smallBlobs, layerBlobs };
}

/** A descriptor of image-spec, as far as it says where a blob is. */
interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

function descriptorOf({ manifest, image }: Exported): Descriptor {
  return {
    mediaType: mediaTypes.ociManifest,
    digest: manifest.digest,
    size: Buffer.byteLength(manifest.json),
    ...(image.type === "image" ? { platform: image.platform } : {}),
  };
}

function formatIndex(manifests: readonly Descriptor[]): string {
  return JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests });
}

/** What some tags stand for in the archive: an image, or an index of several. */
interface Root {
  readonly image: StoredImage;
  readonly tags: readonly string[];
  readonly descriptor: Descriptor;
  readonly smallBlobs: readonly SmallBlob[];
}

function rootOf({ images: [image], tags }: Wanted, exported: readonly Exported[]): Root {
  const descriptors = exported.map(descriptorOf);
  const [first, ...others] = descriptors;
  if (first !== undefined && others.length === 0) return { image, tags, descriptor: first, smallBlobs: [] };
  const json = formatIndex(descriptors);
  const digest = digestOf(json, undefined);
  const descriptor = { mediaType: mediaTypes.ociIndex, digest, size: Buffer.byteLength(json) };
  return { image, tags, descriptor, smallBlobs: [[digest, json]] };
}

function layoutIndexOf(roots: readonly Root[]): string {
  const manifests = roots.flatMap(({ descriptor, tags }) => {
    const named = tags.map((name) => ({
      ...descriptor,
      annotations: {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.slice(name.lastIndexOf(":") + 1),
      },
    }));
    return named.length > 0 ? named : [descriptor];
  });
  return formatIndex(manifests);
}

/** A docker archive has no indexes: its tags stand for what they stand for on this machine. */
function dockerManifestOf(roots: readonly Root[]): string {
  return JSON.stringify(
    roots.map(({ image, tags }) => ({
      Config: blobPath(image.id),
      RepoTags: tags,
      Layers: image.layers.map(({ diffId }) => blobPath(diffId)),
    })),
  );
}

/** The blob from a worker; it is held against its digest there as it goes by. */
async function* layerBytes(
  parts: ExportParts,
  { diffId, file }: LayerBlob,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  const left = new AbortController();
  const stream = new PassThrough();
  const job = {
    kind: "reassemble",
    what: `cannot export layer ${diffId}`,
    directory: dirname(parts.layers.rootOf(diffId)),
    diffId,
    file,
    limits: parts.limits,
  } as const;
  const stop = AbortSignal.any([signal, left.signal]);
  const onPiece = async (bytes: Uint8Array): Promise<void> => {
    if (!stream.write(bytes)) await once(stream, "drain", { signal: stop });
  };
  const done = parts.pool.run(job, { signal: stop, onPiece }).then(
    () => stream.end(),
    (thrown: unknown) => stream.destroy(thrown instanceof Error ? thrown : new Error(String(thrown))),
  );
  try {
    yield* stream as AsyncIterable<Buffer>;
  } finally {
    left.abort();
    await done;
  }
}

async function* archiveOf(parts: ExportParts, call: Call, wanted: readonly Wanted[]): AsyncGenerator<Uint8Array, void> {
  const described = wanted.map(({ images }) => Promise.all(images.map((image) => describe(parts, image))));
  const groups = await Promise.all(described);
  const exported = groups.flat();
  const roots = wanted.map((each, position) => rootOf(each, groups[position] ?? []));
  yield smallFile("oci-layout", JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const small = new Map([...exported, ...roots].flatMap(({ smallBlobs }) => smallBlobs));
  for (const [digest, content] of small) yield smallFile(blobPath(digest), content);
  const large = new Map(exported.flatMap(({ layerBlobs }) => layerBlobs.map((blob) => [blob.digest, blob])));
  for (const [digest, blob] of large) {
    if (small.has(digest)) continue; // a file of an artifact may be as empty as its config
    yield fileHeader(blobPath(digest), blob.sizeBytes);
    yield* layerBytes(parts, blob, call.signal);
    yield paddingOf(blob.sizeBytes);
  }
  yield smallFile("index.json", layoutIndexOf(roots));
  const images = roots.filter(({ image }) => image.type === "image");
  if (images.length > 0) yield smallFile("manifest.json", dockerManifestOf(images));
  yield archiveEnd;
}

/**
 * ExportImages: one archive that is an OCI layout and a docker archive at once. Configs, and so the images' ids, are
 * kept to the byte; layers are given uncompressed, as the config names them, under manifests of our own, and under an
 * index of our own where several platforms are wanted and here. Artifacts are in the layout alone, as they are.
 */
export async function* exportImages(
  parts: ExportParts,
  call: Call,
  request: berth.ExportImagesRequest,
): AsyncGenerator<Init<berth.ExportImagesResponse>, void> {
  const wanted = findWanted(parts, request);
  const images = wanted.flatMap((each) => each.images);
  const hold = parts.layers.hold(images.flatMap(({ layers }) => layers.map(({ diffId }) => diffId)));
  try {
    for await (const chunk of archiveOf(parts, call, wanted)) yield { chunk };
    call.log.info({ imageIds: images.map(({ id }) => id) }, "images exported");
  } finally {
    await hold.release();
  }
}
