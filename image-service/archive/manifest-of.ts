import { type Digest, digestOf } from "../digest.ts";
import { mediaTypes } from "../registry/manifest.ts";

/** Layers as they lie on the disk: their archives, uncompressed. */
export const plainLayerType = "application/vnd.oci.image.layer.v1.tar";

/** What an image is made of, bottom first. */
export interface PlainImage {
  readonly id: Digest;
  readonly configJson: string;
  readonly layers: readonly { readonly diffId: Digest; readonly sizeBytes: number }[];
}

/**
 * The manifest of an image whose layers are not compressed: every blob is named by what the config says already, so
 * the same image has the same manifest wherever it comes from.
 */
export function manifestOf({ id, configJson, layers }: PlainImage): { readonly json: string; readonly digest: Digest } {
  const json = JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: id, size: Buffer.byteLength(configJson) },
    layers: layers.map(({ diffId, sizeBytes }) => ({ mediaType: plainLayerType, digest: diffId, size: sizeBytes })),
  });
  return { json, digest: digestOf(json, undefined) };
}
