import * as v from "valibot";

import { type Digest, digestFileName } from "../digest.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { readBody } from "../registry/http.ts";
import { mediaTypes, parseDocument } from "../registry/manifest.ts";
import type { RegistrySession } from "../registry/session.ts";
import type { AttachmentRead } from "./attachments.ts";

const referrers = v.object({ manifests: v.array(v.object({ artifactType: v.nullish(v.string(), "") })) });
const bundleType = /^application\/vnd\.dev\.sigstore\.bundle\b/;

/**
 * Whether a registry has signatures of a manifest in sigstore's bundle format, as cosign 3 makes them. They sign a digest
 * and name no image, so nothing of them can be held against a policy's `signedIdentity`: they are told of, and no more.
 *
 * @see https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers
 */
export async function hasBundles(
  session: RegistrySession,
  subject: Digest,
  { limits, signal }: AttachmentRead,
): Promise<boolean> {
  for (const path of [`referrers/${subject}`, `manifests/${digestFileName(subject)}`]) {
    try {
      const response = await session.get(path, { accept: mediaTypes.ociIndex }, signal);
      const bytes = await readBody(response, limits.manifestBytes, "the list of referrers");
      const { manifests } = parseDocument(referrers, bytes, "the list of referrers");
      if (manifests.some(({ artifactType }) => bundleType.test(artifactType ?? ""))) return true;
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure)) throw thrown; // else a hint is all that is lost
    }
  }
  return false;
}
