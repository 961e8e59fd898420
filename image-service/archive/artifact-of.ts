import * as v from "valibot";

import { type Manifest, mediaTypes, parseManifest } from "../registry/manifest.ts";

const typed = v.object({ mediaType: v.optional(v.string(), mediaTypes.ociManifest) });

/** What an artifact is made of, by its manifest, which is kept in its config's stead. */
export function artifactOf(manifestJson: string): Manifest & { kind: "artifact" } {
  const { mediaType } = v.parse(typed, JSON.parse(manifestJson));
  const manifest = parseManifest(Buffer.from(manifestJson), mediaType);
  if (manifest.kind !== "artifact") throw new Error("the manifest is not that of an artifact");
  return manifest;
}
