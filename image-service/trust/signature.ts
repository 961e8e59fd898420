import * as v from "valibot";

import { type Digest, isDigest } from "../digest.ts";

const digest = v.custom<Digest>((value) => typeof value === "string" && isDigest(value));

/** Signatures as they are kept with an image: all that a policy may ask for, so that asking needs no network. */
export const signatureSchema = v.variant("kind", [
  v.object({ kind: v.literal("simple-signing"), subject: digest, message: v.string() }),
  v.object({
    kind: v.literal("sigstore"),
    subject: digest,
    payload: v.string(),
    signature: v.string(),
    certificate: v.optional(v.string()),
    chain: v.optional(v.string()),
    bundle: v.optional(v.string()),
  }),
]);

/**
 * A signature that came with an image, not checked yet. `subject` is the manifest that it was found for. `message` (an
 * OpenPGP message), `payload` and `signature` are base64; `certificate` and `chain` are PEM, `bundle` is Rekor's.
 */
export type ImageSignature = v.InferOutput<typeof signatureSchema>;

/** More than this many, or larger ones, are nobody's signatures of one image. */
export const maxSignatures = 64;
export const maxSignatureBytes = 128 << 10;

/** Both, each once, the newer ones first. */
export function mergeSignatures(
  older: readonly ImageSignature[],
  newer: readonly ImageSignature[],
): readonly ImageSignature[] {
  const byContent = new Map([...newer, ...older].map((signature) => [JSON.stringify(signature), signature]));
  return [...byContent.values()].slice(0, maxSignatures);
}
