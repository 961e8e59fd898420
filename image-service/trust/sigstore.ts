import { createPublicKey, type KeyObject, verify } from "node:crypto";

import type { KeySource, Requirement } from "./policy.ts";
import type { ImageSignature } from "./signature.ts";

type SigstoreSignature = Extract<ImageSignature, { kind: "sigstore" }>;
type SigstoreSigned = Extract<Requirement, { type: "sigstoreSigned" }>;

/** Keys from PEM files. @throws {Error} for a file that holds none. */
function publicKeysOf(files: readonly Buffer[]): readonly KeyObject[] {
  return files.map((pem) => {
    try {
      return createPublicKey({ key: pem, format: "pem" });
    } catch (thrown) {
      throw new Error("a public key of the policy is not one in PEM", { cause: thrown });
    }
  });
}

/** Ed25519 signs the bytes themselves, the others their SHA-256; RSA with PKCS #1 v1.5 padding. */
function isSignedBy(key: KeyObject, data: Buffer, signature: Buffer): boolean {
  const { asymmetricKeyType } = key;
  if (asymmetricKeyType === "ed25519") return verify(null, data, key, signature);
  return (asymmetricKeyType === "ec" || asymmetricKeyType === "rsa") && verify("sha256", data, key, signature);
}

/**
 * Checks a signature in cosign's format against what a policy trusts, and returns what was signed.
 *
 * @throws {Error} with the reason if it does not hold.
 * @see https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md
 */
export async function openSigstoreSignature(
  { signer, rekor }: SigstoreSigned,
  signature: SigstoreSignature,
  read: (source: KeySource) => Promise<readonly Buffer[]>,
): Promise<Buffer> {
  const payload = Buffer.from(signature.payload, "base64");
  const signed = Buffer.from(signature.signature, "base64");
  if (!("keys" in signer) || rekor !== undefined) throw new Error("transparency logs are not built");
  const keys = publicKeysOf(await read(signer.keys));
  if (!keys.some((key) => isSignedBy(key, payload, signed))) throw new Error("it is made with another key");
  return payload;
}
