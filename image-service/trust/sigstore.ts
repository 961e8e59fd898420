import type { KeySource, Requirement } from "./policy.ts";
import type { ImageSignature } from "./signature.ts";
import { certificatesOf, verifyCertificate } from "./sigstore-certificate.ts";
import { isSignedBy, publicKeysOf } from "./sigstore-key.ts";
import { verifyLogEntry } from "./sigstore-log.ts";

type SigstoreSignature = Extract<ImageSignature, { kind: "sigstore" }>;
type SigstoreSigned = Extract<Requirement, { type: "sigstoreSigned" }>;

/**
 * Checks a signature in cosign's format against what a policy trusts, and returns what was signed.
 *
 * @throws {Error} with the reason if it does not hold.
 * @see https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md
 */
export async function openSigstoreSignature(
  { signer, rekor }: SigstoreSigned,
  from: SigstoreSignature,
  read: (source: KeySource) => Promise<readonly Buffer[]>,
): Promise<Buffer> {
  const payload = Buffer.from(from.payload, "base64");
  const signature = Buffer.from(from.signature, "base64");
  const logKeys = rekor === undefined ? [] : publicKeysOf(await read(rekor));
  if ("keys" in signer) {
    const key = publicKeysOf(await read(signer.keys)).find((each) => isSignedBy(each, payload, signature));
    if (key === undefined) throw new Error("it is made with another key");
    const pem = key.export({ type: "spki", format: "pem" }).toString();
    if (rekor !== undefined) verifyLogEntry(logKeys, from.bundle, { payload, signature, signer: pem });
    return payload;
  }
  const { ca, ...identity } = signer.fulcio;
  const { certificate = "", chain = "", bundle } = from;
  if (certificate === "") throw new Error("it does not come with one certificate");
  const signedAtMs = verifyLogEntry(logKeys, bundle, { payload, signature, signer: certificate });
  const roots = (await read(ca)).flatMap((pem) => certificatesOf(pem.toString("utf8")));
  const key = verifyCertificate({ ...identity, roots }, { certificate, chain, signedAtMs });
  if (!isSignedBy(key, payload, signature)) throw new Error("it is made with another key");
  return payload;
}
