import * as v from "valibot";

import { refuseNewerSchema } from "../../native/index.ts";
import { type Digest, digestOf, isDigest } from "../digest.ts";
import { artifactDocument, type ImageConfig, type ImageDocument, parseImageDocument } from "../image-config.ts";
import type { Platform } from "../platform.ts";
import { canonicalPlace } from "../reference.ts";
import { type ImageSignature, signatureSchema } from "../trust/signature.ts";

/** One name an image was pulled by, and what that name stood for. */
export interface ImageName {
  /** `docker.io/library/busybox` */
  readonly repository: string;
  /** Absent when pulled by digest, or when the tag has moved on to another image. */
  readonly tag?: string | undefined;
  /** Digest of the manifest or index that the registry keeps under this name. */
  readonly digest: Digest;
  /** The index the image came with, where that index's name stands for the image of another platform. */
  readonly index?: Digest | undefined;
  readonly pulledAtMs: number;
}

/** A layer of an image, bottom first. */
export interface ImageLayer {
  readonly diffId: Digest;
  /** The blob as it was downloaded. */
  readonly digest: Digest;
  readonly mediaType: string;
  readonly size: number;
}

/** An artifact has files and no config, so it can be a volume and nothing else. */
export type ImageType = "image" | "artifact";

/** An image's file on disk. The config is kept to the byte: its digest is the image's id. */
export interface ImageRecord {
  readonly schemaVersion: 1;
  /** In the records of older versions absent: they had images only. */
  readonly type: ImageType;
  readonly id: Digest;
  readonly manifestDigest: Digest;
  readonly names: readonly ImageName[];
  readonly layers: readonly ImageLayer[];
  /** Of an artifact its manifest. */
  readonly configJson: string;
  /** Signatures that came with it, for whoever has to ask a policy later. */
  readonly signatures?: readonly ImageSignature[] | undefined;
}

/** An image in the store. */
export interface StoredImage {
  readonly type: ImageType;
  /** Digest of the image's config, or of the artifact's manifest: `sha256:…`. */
  readonly id: Digest;
  readonly manifestDigest: Digest;
  readonly names: readonly ImageName[];
  readonly layers: readonly ImageLayer[];
  readonly config: ImageConfig;
  readonly platform: Platform;
  /** `repository:tag`, without the tags that have moved to another image. */
  readonly repoTags: readonly string[];
  /** `repository@digest`: only pairs that a registry has served, or an archive brought. */
  readonly repoDigests: readonly string[];
  /** Bytes on disk, layers shared with other images included. */
  readonly sizeBytes: bigint;
  readonly pinned: boolean;
  readonly signatures: readonly ImageSignature[];
}

const schemaVersion = 1;

const digest = v.custom<Digest>((value) => typeof value === "string" && isDigest(value));
/** Older versions kept the host as it was written. */
const repository = v.pipe(v.string(), v.transform(canonicalPlace));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const schema = v.object({
  schemaVersion: v.literal(schemaVersion),
  type: v.optional(v.picklist(["image", "artifact"]), "image"),
  id: digest,
  manifestDigest: digest,
  names: v.array(
    v.object({ repository, tag: v.optional(v.string()), digest, index: v.optional(digest), pulledAtMs: count }),
  ),
  layers: v.array(v.object({ diffId: digest, digest, mediaType: v.string(), size: count })),
  configJson: v.string(),
  signatures: v.optional(v.array(signatureSchema)),
});

/**
 * Reads an image's file.
 *
 * @throws {NewerSchemaError} if a newer Berth wrote it.
 * @throws if it is not one, or if its config is not the one that its id names.
 */
export function parseImageRecord(bytes: Uint8Array): ImageRecord {
  const json: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
  refuseNewerSchema(json, schemaVersion);
  const record = v.parse(schema, json);
  if (digestOf(record.configJson, record.id) !== record.id) throw new Error("the image config does not match its id");
  const { diffIds } = documentOf(record);
  if (diffIds.join() !== record.layers.map(({ diffId }) => diffId).join()) throw new Error("the layers do not match");
  return record;
}

export function repoTagsOf(names: readonly ImageName[]): readonly string[] {
  return [...new Set(names.flatMap(({ repository, tag }) => (tag === undefined ? [] : [`${repository}:${tag}`])))];
}

export function repoDigestsOf(names: readonly ImageName[]): readonly string[] {
  return [...new Set(names.map(({ repository, digest }) => `${repository}@${digest}`))];
}

function documentOf({ type, id, configJson }: ImageRecord): ImageDocument {
  return type === "artifact" ? artifactDocument(id) : parseImageDocument(configJson);
}

/** The image a record describes. */
export function imageOf(
  record: ImageRecord,
  layerBytes: (diffId: Digest) => number,
  isPinned: (names: readonly ImageName[]) => boolean,
): StoredImage {
  const { config, platform } = documentOf(record);
  const { type, id, manifestDigest, names, layers } = record;
  const diffIds = new Set(layers.map(({ diffId }) => diffId));
  let size = Buffer.byteLength(record.configJson);
  for (const diffId of diffIds) size += layerBytes(diffId);
  return {
    type,
    id,
    manifestDigest,
    names,
    layers,
    config,
    platform,
    repoTags: repoTagsOf(names),
    repoDigests: repoDigestsOf(names),
    sizeBytes: BigInt(size),
    pinned: isPinned(names),
    signatures: record.signatures ?? [],
  };
}
