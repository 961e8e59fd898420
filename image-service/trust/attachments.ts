import * as v from "valibot";

import { type Digest, digestFileName } from "../digest.ts";
import { downloadSmallBlob } from "../registry/blob.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { readBody } from "../registry/http.ts";
import type { PullLimits, RetryPolicy } from "../registry/limits.ts";
import { descriptorSchema, mediaTypes, parseDocument } from "../registry/manifest.ts";
import { retrying } from "../registry/retry.ts";
import type { RegistrySession } from "../registry/session.ts";
import { type ImageSignature, maxSignatureBytes, maxSignatures } from "./signature.ts";

export interface AttachmentRead {
  readonly limits: PullLimits;
  readonly policy: RetryPolicy;
  readonly signal: AbortSignal;
}

const payloadType = "application/vnd.dev.cosign.simplesigning.v1+json";
const annotation = v.optional(v.pipe(v.string(), v.maxBytes(maxSignatureBytes)));
const signatureManifest = v.object({
  layers: v.array(
    v.object({
      ...descriptorSchema.entries,
      annotations: v.optional(
        v.object({
          "dev.cosignproject.cosign/signature": annotation,
          "dev.sigstore.cosign/certificate": annotation,
          "dev.sigstore.cosign/chain": annotation,
          "dev.sigstore.cosign/bundle": annotation,
        }),
        {},
      ),
    }),
  ),
});
type SignatureLayer = v.InferOutput<typeof signatureManifest>["layers"][number];

async function readSignature(
  session: RegistrySession,
  layer: SignatureLayer,
  subject: Digest,
  { policy, signal }: AttachmentRead,
): Promise<ImageSignature> {
  if (layer.size > maxSignatureBytes)
    throw new RegistryFailure("invalid", `a signature is larger than ${maxSignatureBytes} bytes`);
  const payload = await downloadSmallBlob({ session, descriptor: layer, policy, signal });
  const { annotations } = layer;
  return {
    kind: "sigstore",
    subject,
    payload: payload.toString("base64"),
    signature: annotations["dev.cosignproject.cosign/signature"] ?? "",
    certificate: annotations["dev.sigstore.cosign/certificate"],
    chain: annotations["dev.sigstore.cosign/chain"],
    bundle: annotations["dev.sigstore.cosign/bundle"],
  };
}

/**
 * Signatures that cosign has put beside a manifest in its registry, as layers of an image with the tag
 * `sha256-<hex>.sig`.
 *
 * @throws {RegistryFailure} also for a document that is no such image; without one there are simply none.
 * @see https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md
 */
export async function readAttachments(
  session: RegistrySession,
  subject: Digest,
  read: AttachmentRead,
): Promise<readonly ImageSignature[]> {
  const { limits, policy, signal } = read;
  const bytes = await retrying(policy, signal, async () => {
    const headers = { accept: mediaTypes.ociManifest };
    const response = await session.get(`manifests/${digestFileName(subject)}.sig`, headers, signal);
    return await readBody(response, limits.manifestBytes, "the manifest of signatures");
  });
  const { layers } = parseDocument(signatureManifest, bytes, "the manifest of signatures");
  const wanted = layers.filter(({ mediaType }) => mediaType === payloadType).slice(0, maxSignatures);
  return await Promise.all(wanted.map((layer) => readSignature(session, layer, subject, read)));
}
