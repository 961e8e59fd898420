import { type Digest, digestOf, isDigest } from "../digest.ts";
import { parseImageDocument } from "../image-config.ts";
import { formatPlatform, type Platform } from "../platform.ts";
import type { ImageType } from "../store/image-record.ts";
import { downloadSmallBlob } from "./blob.ts";
import { RegistryFailure } from "./failure.ts";
import { headerOf, readBody } from "./http.ts";
import type { PullLimits, RetryPolicy } from "./limits.ts";
import {
  acceptManifests,
  chooseManifest,
  type ArtifactFile,
  type Descriptor,
  type LayerBlob,
  type Manifest,
  mediaTypeOf,
  mediaTypes,
  parseManifest,
} from "./manifest.ts";
import { retrying } from "./retry.ts";
import type { RegistrySession } from "./session.ts";

export interface LayerDescriptor extends LayerBlob {
  readonly diffId: Digest;
  /** Of an artifact, which is one layer: the files that make it up. */
  readonly files?: readonly ArtifactFile[];
}

/** What a name stands for at this moment. */
export type Resolution =
  | { readonly kind: "known"; readonly targetDigest: Digest }
  | {
      readonly kind: "resolved";
      /** Digest of what the name points to: an index or a manifest. */
      readonly targetDigest: Digest;
      readonly manifestDigest: Digest;
      readonly type: ImageType;
      readonly id: Digest;
      readonly configJson: string;
      readonly layers: readonly LayerDescriptor[];
    };

export interface ResolveOptions {
  readonly name: { readonly tag: string | undefined; readonly digest: Digest | undefined };
  readonly platform: Platform;
  /** Digests the store holds under this repository: nothing more needs to be read for them. */
  readonly known: readonly Digest[];
  readonly limits: PullLimits;
  readonly policy: RetryPolicy;
}

/** Indexes in indexes: more than anybody builds. */
const maxIndexes = 4;

interface FetchedManifest {
  readonly digest: Digest;
  readonly manifest: Manifest;
  readonly text: string;
}

interface Reading {
  readonly session: RegistrySession;
  readonly options: ResolveOptions;
  readonly signal: AbortSignal;
}

/** Fetches the bytes of a manifest; with a digest to hold them against, or the registry's own word of it. */
async function fetchManifest(reading: Reading, name: string, wanted: Digest | undefined): Promise<FetchedManifest> {
  const { session, options, signal } = reading;
  return retrying(options.policy, signal, async () => {
    const response = await session.get(`manifests/${name}`, { accept: acceptManifests }, signal);
    const bytes = await readBody(response, options.limits.manifestBytes, "the manifest");
    const claimed = headerOf(response, "docker-content-digest");
    const expected = wanted ?? (claimed !== undefined && isDigest(claimed) ? claimed : undefined);
    const digest = digestOf(bytes, expected);
    if (expected !== undefined && digest !== expected)
      throw new RegistryFailure("invalid", `the manifest has the digest ${digest}, not ${expected}`);
    const manifest = parseManifest(bytes, mediaTypeOf(headerOf(response, "content-type")));
    return { digest, manifest, text: bytes.toString("utf8") };
  });
}

async function fetchConfig(reading: Reading, descriptor: Descriptor): Promise<string> {
  const { session, options, signal } = reading;
  if (descriptor.size > options.limits.configBytes)
    throw new RegistryFailure("invalid", `the image config is larger than ${options.limits.configBytes} bytes`);
  const bytes = await downloadSmallBlob({ session, descriptor, policy: options.policy, signal });
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (thrown) {
    throw new RegistryFailure("invalid", "the image config is not UTF-8", { cause: thrown });
  }
}

function layersOf(
  manifest: Manifest & { kind: "image" },
  configJson: string,
  options: ResolveOptions,
): LayerDescriptor[] {
  const document = parseConfig(configJson);
  const { os, architecture } = document.platform;
  const isForeign =
    os !== options.platform.os || (architecture !== "" && architecture !== options.platform.architecture);
  if (isForeign)
    throw new RegistryFailure(
      "absent",
      `the image is for ${formatPlatform(document.platform)}, not ${formatPlatform(options.platform)}`,
    );
  if (manifest.layers.length > options.limits.layers)
    throw new RegistryFailure("invalid", `the image has more than ${options.limits.layers} layers`);
  if (document.diffIds.length !== manifest.layers.length)
    throw new RegistryFailure("invalid", "the manifest and the image config count their layers differently");
  return manifest.layers.flatMap((layer, index) => {
    const diffId = document.diffIds[index];
    return diffId === undefined ? [] : [{ ...layer, diffId }];
  });
}

/** All files of an artifact go by the digest of its manifest, which names each of them. */
function artifactLayer(files: readonly ArtifactFile[], digest: Digest, limits: PullLimits): LayerDescriptor {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  if (size > limits.layerBytes)
    throw new RegistryFailure("invalid", `the artifact is larger than ${limits.layerBytes} bytes`);
  return { mediaType: mediaTypes.ociManifest, digest, diffId: digest, size, urls: [], files };
}

function parseConfig(configJson: string): ReturnType<typeof parseImageDocument> {
  try {
    return parseImageDocument(configJson);
  } catch (thrown) {
    const reason = thrown instanceof SyntaxError || !(thrown instanceof Error) ? "it is not JSON" : thrown.message;
    throw new RegistryFailure("invalid", `the image config cannot be used: ${reason}`, { cause: thrown });
  }
}

/** Follows a name through the index to the image's config and layers, checking every byte on the way. */
export async function resolveImage(
  session: RegistrySession,
  options: ResolveOptions,
  signal: AbortSignal,
): Promise<Resolution> {
  const reading = { session, options, signal };
  const target = await fetchManifest(reading, options.name.digest ?? options.name.tag ?? "latest", options.name.digest);
  if (options.known.includes(target.digest)) return { kind: "known", targetDigest: target.digest };
  let found = target;
  for (let depth = 0; found.manifest.kind === "index"; depth += 1) {
    if (depth === maxIndexes)
      throw new RegistryFailure("invalid", `it has indexes in indexes, more than ${maxIndexes} deep`);
    const chosen = chooseManifest(found.manifest, options.platform);
    found = await fetchManifest(reading, chosen.digest, chosen.digest);
  }
  const { manifest } = found;
  const digests = { targetDigest: target.digest, manifestDigest: found.digest };
  if (manifest.kind === "artifact") {
    const layer = artifactLayer(manifest.files, found.digest, options.limits);
    return {
      kind: "resolved",
      ...digests,
      type: "artifact",
      id: found.digest,
      configJson: found.text,
      layers: [layer],
    };
  }
  const configJson = await fetchConfig(reading, manifest.config);
  return {
    kind: "resolved",
    ...digests,
    type: "image",
    id: manifest.config.digest,
    configJson,
    layers: layersOf(manifest, configJson, options),
  };
}
