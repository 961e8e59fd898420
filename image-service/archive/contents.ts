import type { Digest } from "../digest.ts";
import { type ImageDocument, parseImageDocument } from "../image-config.ts";
import { formatPlatform, type Platform, platformRank } from "../platform.ts";
import type { PullLimits } from "../registry/limits.ts";
import type { ArtifactFile } from "../registry/manifest.ts";
import type { ImageType } from "../store/image-record.ts";
import type { Member } from "./archive.ts";
import { ArchiveError } from "./archive-error.ts";

/** A layer of an image in an archive, bottom first: one member, or the files of an artifact. */
export type ArchivedLayer = {
  readonly diffId: Digest;
  /** How the image's manifest tells of the blob; a docker archive has no manifests. */
  readonly blob: { readonly digest: Digest; readonly mediaType: string } | undefined;
} & (
  | { readonly member: Member; readonly files?: undefined }
  | { readonly member?: undefined; readonly files: readonly ArchivedFile[] }
);

export interface ArchivedFile extends ArtifactFile {
  readonly member: Member;
}

/** Bytes of a layer as the archive has them. */
export function archivedBytes({ member, files }: ArchivedLayer): number {
  return files === undefined ? member.size : files.reduce((sum, file) => sum + file.size, 0);
}

/** An image in an archive. */
export interface ArchivedImage {
  readonly type: ImageType;
  readonly id: Digest;
  /** Of an artifact its manifest. */
  readonly configJson: string;
  readonly platform: Platform;
  /** Absent in a docker archive. */
  readonly digests: { readonly target: Digest; readonly manifest: Digest } | undefined;
  readonly layers: readonly ArchivedLayer[];
  /** Names as the archive spells them. */
  readonly names: readonly string[];
  /** What OCI's own annotation may be: a tag without a repository. */
  readonly bareTag?: string | undefined;
  /** One of the other platforms of an index: the index's tag does not stand for it on this machine. */
  readonly isForeign: boolean;
}

/** What of an archive is wanted. */
export interface Selection {
  /** Of an index, this one. */
  readonly platform: Platform;
  /** Of an index, all that the archive has. */
  readonly isAll: boolean;
  readonly limits: PullLimits;
}

/** @throws {ArchiveError} */
export function parseConfig(bytes: Buffer): { readonly json: string; readonly document: ImageDocument } {
  try {
    const json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { json, document: parseImageDocument(json) };
  } catch (thrown) {
    const reason = thrown instanceof SyntaxError || thrown instanceof TypeError ? "it is not JSON" : String(thrown);
    throw new ArchiveError(`an image config cannot be used: ${reason}`, { cause: thrown });
  }
}

export function isRunnable({ platform }: Selection, offered: Platform): boolean {
  return (
    platformRank(platform, { ...offered, architecture: offered.architecture || platform.architecture }) !== undefined
  );
}

/** @throws {ArchiveError} for an image that is not of the platform that was asked for. */
export function checkPlatform(selection: Selection, offered: Platform): void {
  if (selection.isAll || isRunnable(selection, offered)) return;
  const [is, wanted] = [formatPlatform(offered), formatPlatform(selection.platform)];
  throw new ArchiveError(`the image is for ${is}, not ${wanted}; --platform or --all-platforms would take it`);
}

/** @throws {ArchiveError} for more layers than one mount takes, or another number than the config has. */
export function checkLayers(document: ImageDocument, count: number, limits: PullLimits): void {
  if (count > limits.layers) throw new ArchiveError(`an image has more than ${limits.layers} layers`);
  if (count !== document.diffIds.length)
    throw new ArchiveError("a manifest and its image config count their layers differently");
}
