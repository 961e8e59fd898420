import * as v from "valibot";

import { type Digest, isDigest } from "../digest.ts";
import { artifactDocument } from "../image-config.ts";
import { type Platform, platformRank } from "../platform.ts";
import { type Descriptor, type Manifest, mediaTypes, parseManifest } from "../registry/manifest.ts";
import { type Archive, blobPath, type Member, readBlob } from "./archive.ts";
import { ArchiveError } from "./archive-error.ts";
import {
  archivedBytes,
  type ArchivedImage,
  checkLayers,
  checkPlatform,
  isRunnable,
  parseConfig,
  type Selection,
} from "./contents.ts";

const digest = v.custom<Digest>((value) => typeof value === "string" && isDigest(value), "not a digest");
const layoutIndex = v.object({
  manifests: v.pipe(
    v.array(
      v.object({
        mediaType: v.string(),
        digest,
        annotations: v.nullish(v.record(v.string(), v.string()), {}),
      }),
    ),
    v.maxLength(1024),
  ),
});
type Root = v.InferOutput<typeof layoutIndex>["manifests"][number];

/** Indexes in indexes: more than anybody builds. */
const maxDepth = 4;

interface Reading {
  readonly archive: Archive;
  readonly selection: Selection;
  /** What index.json names: where digest, names and tag come from. */
  readonly root: Root;
}

/** What containerd and docker annotate is the whole name; the specification's own may be a tag alone. */
function namesOf({ annotations }: Root): Pick<ArchivedImage, "names" | "bareTag"> {
  const whole = annotations["io.containerd.image.name"] ?? "";
  const specified = annotations["org.opencontainers.image.ref.name"] ?? "";
  if (whole !== "") return { names: [whole] };
  if (/^\w[\w.-]{0,127}$/.test(specified)) return { names: [], bareTag: specified };
  return { names: specified === "" ? [] : [specified] };
}

function memberOf(archive: Archive, { digest: blobDigest, size }: Descriptor): Member {
  const member = archive.find(blobPath(blobDigest));
  if (member === undefined) throw new ArchiveError(`it lacks layer ${blobDigest}`);
  if (member.size !== size) throw new ArchiveError(`layer ${blobDigest} has ${member.size} bytes, not ${size}`);
  return member;
}

/** All files of an artifact are one layer, named by its manifest. */
function artifactOf(
  { archive, selection, root }: Reading,
  { files }: Manifest & { kind: "artifact" },
  manifest: { readonly id: Digest; readonly json: string },
): ArchivedImage {
  const { id, json } = manifest;
  const blob = { digest: id, mediaType: mediaTypes.ociManifest };
  const layer = { diffId: id, blob, files: files.map((file) => ({ ...file, member: memberOf(archive, file) })) };
  if (archivedBytes(layer) > selection.limits.layerBytes)
    throw new ArchiveError(`an artifact is larger than ${selection.limits.layerBytes} bytes`);
  return {
    type: "artifact",
    id,
    configJson: json,
    platform: artifactDocument(id).platform,
    digests: { target: root.digest, manifest: id },
    layers: [layer],
    ...namesOf(root),
    isForeign: false,
  };
}

function imageOf(reading: Reading, manifest: Manifest & { kind: "image" }, manifestDigest: Digest): ArchivedImage {
  const { archive, selection, root } = reading;
  const { limits } = selection;
  const { json, document } = parseConfig(readBlob(archive, manifest.config.digest, limits.configBytes));
  checkPlatform(selection, document.platform);
  checkLayers(document, manifest.layers.length, limits);
  const layers = manifest.layers.flatMap((descriptor, index) => {
    const [member, diffId] = [memberOf(archive, descriptor), document.diffIds[index]];
    return diffId === undefined ? [] : [{ diffId, member, blob: descriptor }];
  });
  return {
    type: "image",
    id: manifest.config.digest,
    configJson: json,
    platform: document.platform,
    digests: { target: root.digest, manifest: manifestDigest },
    layers,
    ...namesOf(root),
    isForeign: !isRunnable(selection, document.platform),
  };
}

type Entry = Descriptor & { readonly platform: Platform | undefined };

/** The entries of an index that are to be read: the best one for the platform, or all that the archive has. */
function choose({ archive, selection }: Reading, manifest: Manifest & { kind: "index" }): readonly Entry[] {
  const isHere = (entry: Entry): boolean => archive.find(blobPath(entry.digest)) !== undefined;
  // Attestations stand in an index as images of an unknown platform.
  const images = manifest.entries.filter((entry) => entry.platform?.os !== "unknown");
  if (selection.isAll) return images.filter(isHere);
  const rankOf = ({ platform }: Entry): number =>
    (platform === undefined ? undefined : platformRank(selection.platform, platform)) ?? Number.POSITIVE_INFINITY;
  const ranked = images.filter((entry) => Number.isFinite(rankOf(entry))).sort((a, b) => rankOf(a) - rankOf(b));
  const [best] = ranked.length > 0 ? ranked : images.filter(({ platform }) => platform === undefined);
  return best === undefined ? [] : [best];
}

function isIndex(mediaType: string): boolean {
  return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerList;
}

function imagesBelow(reading: Reading, wanted: Digest, mediaType: string, depth: number): readonly ArchivedImage[] {
  if (depth > maxDepth) throw new ArchiveError(`it has indexes in indexes, more than ${maxDepth} deep`);
  const bytes = readBlob(reading.archive, wanted, reading.selection.limits.manifestBytes);
  const manifest = parseManifest(bytes, mediaType);
  if (manifest.kind === "image") return [imageOf(reading, manifest, wanted)];
  if (manifest.kind === "artifact")
    return [artifactOf(reading, manifest, { id: wanted, json: bytes.toString("utf8") })];
  const images = choose(reading, manifest).flatMap((entry) =>
    imagesBelow(reading, entry.digest, entry.mediaType, depth + (isIndex(entry.mediaType) ? 1 : 0)),
  );
  if (images.length === 0) throw new ArchiveError(`index ${wanted} has no image for the platform that was asked for`);
  return images;
}

/**
 * The images of an OCI layout: those that index.json names.
 *
 * @throws {ArchiveError} or a RegistryFailure where a manifest is malformed or of no kind that we run.
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
 */
export function readOciLayout(archive: Archive, selection: Selection): readonly ArchivedImage[] {
  const json = archive.read("index.json", selection.limits.manifestBytes).toString("utf8");
  let parsed: v.SafeParseResult<typeof layoutIndex>;
  try {
    parsed = v.safeParse(layoutIndex, JSON.parse(json));
  } catch (thrown) {
    throw new ArchiveError("index.json is not JSON", { cause: thrown });
  }
  if (!parsed.success) throw new ArchiveError(`index.json is malformed at "${v.getDotPath(parsed.issues[0]) ?? ""}"`);
  return parsed.output.manifests.flatMap((root) =>
    imagesBelow({ archive, selection, root }, root.digest, root.mediaType, 0),
  );
}
