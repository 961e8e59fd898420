import type { X509Certificate } from "node:crypto";

import type { KeySource, Requirement } from "./policy.ts";
import type { ImageSignature } from "./signature.ts";
import { certificatesOf, type CertificateTrust, verifyCertificate } from "./sigstore-certificate.ts";
import { isSignedBy, publicKeysOf } from "./sigstore-key.ts";
import { verifyLogEntry } from "./sigstore-log.ts";

type SigstoreSignature = Extract<ImageSignature, { kind: "sigstore" }>;
type SigstoreSigned = Extract<Requirement, { type: "sigstoreSigned" }>;

async function certificateTrust(
  signer: Exclude<SigstoreSigned["signer"], { keys: KeySource }>,
  certificatesIn: (source: KeySource) => Promise<readonly X509Certificate[]>,
): Promise<CertificateTrust> {
  if ("pki" in signer) {
    const { roots, intermediates, ...subjects } = signer.pki;
    const known = intermediates === undefined ? [] : await certificatesIn(intermediates);
    return { ...subjects, oidcIssuer: undefined, roots: await certificatesIn(roots), intermediates: known };
  }
  const { ca, ...identity } = signer.fulcio;
  return { ...identity, subjectHostname: undefined, roots: await certificatesIn(ca), intermediates: [] };
}

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
  const { certificate = "", chain = "", bundle } = from;
  if (certificate === "") throw new Error("it does not come with one certificate");
  const certificatesIn = async (source: KeySource): Promise<readonly X509Certificate[]> =>
    (await read(source)).flatMap((pem) => certificatesOf(pem.toString("utf8")));
  const trust = await certificateTrust(signer, certificatesIn);
  // Without a log nothing tells when it was made, so the certificate has to hold today.
  const isLogged = "fulcio" in signer;
  const logged = { payload, signature, signer: certificate };
  const signedAtMs = isLogged ? verifyLogEntry(logKeys, bundle, logged) : Date.now();
  const key = verifyCertificate(trust, { certificate, chain, signedAtMs });
  if (!isSignedBy(key, payload, signature)) throw new Error("it is made with another key");
  return payload;
}
