import * as v from "valibot";

import { type Digest, isDigest } from "../digest.ts";
import { formatPlatform, type Platform, platformRank } from "../platform.ts";
import { quote } from "../reference.ts";
import { RegistryFailure } from "./failure.ts";

export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
} as const;

const indexTypes: ReadonlySet<string> = new Set([mediaTypes.ociIndex, mediaTypes.dockerList]);
const manifestTypes: ReadonlySet<string> = new Set([mediaTypes.ociManifest, mediaTypes.dockerManifest]);
const configTypes: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
]);
const layerType =
  /^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)(?:[.+](?:gzip|zstd))?$/;

/** Every kind of manifest we read, for the Accept header. */
export const acceptManifests: string = Object.values(mediaTypes).join(", ");

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

/** A layer's blob, and for one that registries need not have, where else it is. */
export interface LayerBlob extends Descriptor {
  readonly urls: readonly string[];
}

/** Whether registries may do without the layer. */
export function isForeign(mediaType: string): boolean {
  return /\.(?:foreign|nondistributable)\./.test(mediaType);
}

/** A file of an artifact: the blob and where it goes. */
export interface ArtifactFile extends Descriptor {
  readonly path: string;
}

export type Manifest =
  | { readonly kind: "index"; readonly entries: readonly (Descriptor & { readonly platform: Platform | undefined })[] }
  | { readonly kind: "image"; readonly config: Descriptor; readonly layers: readonly LayerBlob[] }
  /** `others` are its config and the blobs without a name. */
  | { readonly kind: "artifact"; readonly files: readonly ArtifactFile[]; readonly others: readonly Descriptor[] };

const digest = v.custom<Digest>(
  (value) => typeof value === "string" && isDigest(value),
  "not a sha256 or sha512 digest",
);
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** What every descriptor has. */
export const descriptorSchema = v.object({ mediaType: v.string(), digest, size });
const word = v.nullish(v.string(), "");
const platform = v.object({ os: word, architecture: word, variant: word });
const envelope = v.looseObject({
  schemaVersion: v.literal(2),
  mediaType: v.optional(v.string()),
  manifests: v.optional(v.unknown()),
  layers: v.optional(v.unknown()),
  config: v.optional(v.unknown()),
});
/** Manifests of 2015, which no current tool writes. */
const schema1 = v.object({ schemaVersion: v.literal(1) });
const index = v.object({
  manifests: v.pipe(
    v.array(v.object({ ...descriptorSchema.entries, platform: v.nullish(platform) })),
    v.maxLength(1024),
  ),
});
const maxUrls = 8;
const urls = v.nullish(v.array(v.pipe(v.string(), v.maxLength(2048))), []);
const image = v.object({
  config: descriptorSchema,
  layers: v.array(v.object({ ...descriptorSchema.entries, urls })),
});
const artifact = v.object({
  layers: v.array(
    v.object({ ...descriptorSchema.entries, annotations: v.nullish(v.record(v.string(), v.string()), {}) }),
  ),
});
const maxTitleLength = 1024;
/** Where artifacts say what a blob is called: OCI's own annotation, and that of the CNCF's model specification. */
const titles = ["org.opencontainers.image.title", "org.cncf.model.filepath"];

function check<Schema extends v.GenericSchema>(schema: Schema, value: unknown, what: string): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  throw new RegistryFailure("invalid", `${what} is malformed at ${quote(v.getDotPath(issue) ?? "")}: ${issue.type}`);
}

function decodeJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw new RegistryFailure("invalid", `${what} is not JSON`, { cause: thrown });
  }
}

/** Reads a document of a registry by its schema. @throws {RegistryFailure} naming the first field that is wrong. */
export function parseDocument<Schema extends v.GenericSchema>(
  schema: Schema,
  bytes: Uint8Array,
  what: string,
): v.InferOutput<Schema> {
  return check(schema, decodeJson(bytes, what), what);
}

/** `type/subtype` of a Content-Type header, without parameters. */
export function mediaTypeOf(contentType: string | undefined): string {
  return (contentType ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

function agreedMediaType(contentType: string, inside: string | undefined): string {
  if (inside !== undefined && inside !== contentType)
    throw new RegistryFailure(
      "invalid",
      `the manifest says it is ${JSON.stringify(inside.slice(0, 128))}, its Content-Type ${JSON.stringify(contentType.slice(0, 128))}`,
    );
  return contentType;
}

function imageManifest(json: unknown): Manifest {
  const { config, layers } = check(image, json, "the manifest");
  if (!configTypes.has(config.mediaType)) return artifactManifest(json, config);
  for (const layer of layers) {
    if (layerType.test(layer.mediaType)) continue;
    const why = layer.mediaType.endsWith("+encrypted") ? "is encrypted" : "has an unknown media type";
    throw new RegistryFailure(
      "unsupported",
      `layer ${layer.digest} ${why}: ${JSON.stringify(layer.mediaType.slice(0, 128))}`,
    );
  }
  const blobs = layers.map((layer) => ({ ...layer, urls: isForeign(layer.mediaType) ? webAddresses(layer.urls) : [] }));
  return { kind: "image", config, layers: blobs };
}

/** Those that can be asked, without what would be a secret. */
function webAddresses(given: readonly string[]): readonly string[] {
  return given.slice(0, maxUrls).flatMap((text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const isWeb = url !== undefined && /^https?:$/.test(url.protocol) && url.username + url.password === "";
    return isWeb ? [url.href] : [];
  });
}

/** What is no image by its config is an artifact; blobs without a name are no files. */
function artifactManifest(json: unknown, config: Descriptor): Manifest {
  const files: ArtifactFile[] = [];
  const others: Descriptor[] = [config];
  for (const { annotations, ...blob } of check(artifact, json, "the manifest").layers) {
    const path = titles.map((title) => annotations[title]).find((title) => title !== undefined && title !== "");
    if (path === undefined) others.push(blob);
    else files.push({ ...blob, path: cleanPath(path) });
  }
  if (files.length === 0)
    throw new RegistryFailure(
      "unsupported",
      `neither a container image, its config is ${JSON.stringify(config.mediaType.slice(0, 128))}, nor an artifact with named files`,
    );
  requireDistinct(files.map(({ path }) => path));
  return { kind: "artifact", files, others };
}

/** No file may stand where another one, or a folder of another one, does. */
function requireDistinct(paths: readonly string[]): void {
  const taken = new Set<string>();
  for (const path of paths) {
    if (taken.has(path)) throw new RegistryFailure("invalid", `the artifact has two files ${JSON.stringify(path)}`);
    taken.add(path);
  }
  for (const path of paths)
    for (let cut = path.lastIndexOf("/"); cut !== -1; cut = path.lastIndexOf("/", cut - 1))
      if (taken.has(path.slice(0, cut)))
        throw new RegistryFailure(
          "invalid",
          `the artifact has a file and a folder ${JSON.stringify(path.slice(0, cut))}`,
        );
}

/** A path below the artifact's root; what overlayfs or its users read a meaning into is refused. */
function cleanPath(title: string): string {
  const components = title.split("/").filter((component) => component !== "" && component !== ".");
  const isHostile = components.some((component) => component === ".." || component.startsWith(".wh."));
  if (components.length === 0 || isHostile || title.length > maxTitleLength || /\p{Cc}/u.test(title))
    throw new RegistryFailure(
      "invalid",
      `the artifact has a file that cannot be called ${JSON.stringify(title.slice(0, 128))}`,
    );
  return components.join("/");
}

/**
 * Reads an image manifest, an artifact's, or an index. A document that could be read as both is refused, as is one whose
 * Content-Type and `mediaType` differ (CVE-2021-41190).
 */
export function parseManifest(bytes: Uint8Array, contentType: string): Manifest {
  const json = decodeJson(bytes, "the manifest");
  if (/application\/vnd\.docker\.distribution\.manifest\.v1\+/.test(contentType) || v.is(schema1, json))
    throw new RegistryFailure("unsupported", "the image has a Docker schema 1 manifest, which is to be pushed anew");
  const outer = check(envelope, json, "the manifest");
  const mediaType = agreedMediaType(contentType, outer.mediaType);
  if (outer.manifests !== undefined && (outer.layers !== undefined || outer.config !== undefined))
    throw new RegistryFailure("invalid", "the manifest has both manifests and layers");
  if (indexTypes.has(mediaType))
    return { kind: "index", entries: check(index, json, "the index").manifests.map(entry) };
  if (manifestTypes.has(mediaType)) return imageManifest(json);
  throw new RegistryFailure("invalid", `unexpected Content-Type ${JSON.stringify(mediaType.slice(0, 128))}`);
}

function entry(
  parsed: v.InferOutput<typeof index>["manifests"][number],
): Descriptor & { platform: Platform | undefined } {
  const { mediaType, digest: named, size: bytes, platform: given } = parsed;
  const isNamed = given !== null && given !== undefined && given.os + given.architecture !== "";
  return { mediaType, digest: named, size: bytes, platform: isNamed ? given : undefined };
}

const maxNamedPlatforms = 16;

/** What there is instead, for whoever asked for another platform. */
function offeredPlatforms({ entries }: Manifest & { kind: "index" }): string {
  const names = entries.flatMap(({ platform: offered }) =>
    offered === undefined || offered.os === "unknown" ? [] : [formatPlatform(offered)],
  );
  const unique = [...new Set(names)];
  const more = unique.length > maxNamedPlatforms ? ` and ${unique.length - maxNamedPlatforms} more` : "";
  return unique.length === 0 ? "" : `, only for ${unique.slice(0, maxNamedPlatforms).join(", ")}${more}`;
}

/** The best entry of these types: best variant first, then the order of the index. */
function bestOf(
  { entries }: Manifest & { kind: "index" },
  types: ReadonlySet<string>,
  wanted: Platform,
): Descriptor | undefined {
  let best: { rank: number; descriptor: Descriptor } | undefined;
  for (const candidate of entries) {
    if (!types.has(candidate.mediaType)) continue;
    const rank = candidate.platform === undefined ? undefined : platformRank(wanted, candidate.platform);
    if (rank !== undefined && (best === undefined || rank < best.rank)) best = { rank, descriptor: candidate };
  }
  return best?.descriptor;
}

/** The entry of an index that runs on `wanted`: a manifest, or else an index that is for it. */
export function chooseManifest(manifest: Manifest & { kind: "index" }, wanted: Platform): Descriptor {
  const unlabelled = manifest.entries.filter(({ platform: named }) => named === undefined);
  const [only] = manifest.entries.length === 1 ? unlabelled : [];
  const chosen = bestOf(manifest, manifestTypes, wanted) ?? bestOf(manifest, indexTypes, wanted) ?? only;
  if (chosen !== undefined) return chosen;
  throw new RegistryFailure(
    "absent",
    `the index has no image for ${formatPlatform(wanted)}${offeredPlatforms(manifest)}`,
  );
}
