import { type KeyObject, X509Certificate } from "node:crypto";
import { isIP } from "node:net";

import { type Extension, extensionsOf, readDer, readSequence } from "./der.ts";

/** Who has to stand behind a certificate, and what it has to say, where that is defined. */
export interface CertificateTrust {
  readonly roots: readonly X509Certificate[];
  /** Known beside those that come with the certificate. */
  readonly intermediates: readonly X509Certificate[];
  readonly oidcIssuer: string | undefined;
  readonly subjectEmail: string | undefined;
  readonly subjectHostname: string | undefined;
}

/** A certificate, those that came with it, and when it was used; certificates are PEM. */
export interface CertificateUse {
  readonly certificate: string;
  readonly chain: string;
  readonly signedAtMs: number;
}

/** Extensions by their OID in hex. */
const extensionIds = {
  keyUsage: "551d0f",
  subjectAltName: "551d11",
  basicConstraints: "551d13",
  extendedKeyUsage: "551d25",
  /** 1.3.6.1.4.1.57264.1.1: the issuer as bare text; 1.3.6.1.4.1.57264.1.8: the same as DER. */
  issuerText: "2b0601040183bf300101",
  issuer: "2b0601040183bf300108",
} as const;
const understood: ReadonlySet<string> = new Set([
  extensionIds.keyUsage,
  extensionIds.subjectAltName,
  extensionIds.basicConstraints,
  extensionIds.extendedKeyUsage,
]);
const codeSigning = "1.3.6.1.5.5.7.3.3";
const anyUsage = "2.5.29.37.0";
const emailTag = 0x81;
const utf8Tag = 0x0c;
const integerTag = 0x02;
/** Authorities between a root and a certificate: Fulcio has one. */
const maxBetween = 2;

/** All certificates of a PEM text. @throws {Error} for one that is none. */
export function certificatesOf(pem: string): readonly X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  return blocks.slice(0, 32).map((block) => new X509Certificate(block));
}

function requireSound(certificate: X509Certificate, atMs: number): ReadonlyMap<string, Extension> {
  const extensions = extensionsOf(certificate.raw);
  for (const [oid, { isCritical }] of extensions)
    if (isCritical && !understood.has(oid)) throw new Error("its certificate has a critical extension we do not know");
  if (certificate.validFromDate.getTime() > atMs || certificate.validToDate.getTime() < atMs)
    throw new Error("its certificate was not valid when it was made");
  return extensions;
}

/** The extended key usage, which `node:crypto` leaves undefined where there is none. */
function usagesOf(certificate: X509Certificate): readonly string[] | undefined {
  return certificate.keyUsage;
}

function maySignCode(usages: readonly string[]): boolean {
  return usages.includes(codeSigning) || usages.includes(anyUsage);
}

/** How many authorities may stand between this one and the certificate; no limit without one. */
function pathLength(extensions: ReadonlyMap<string, Extension>): number {
  const value = extensions.get(extensionIds.basicConstraints)?.value;
  const limit = value === undefined ? undefined : readSequence(value).find(({ tag }) => tag === integerTag)?.content;
  return limit === undefined ? Infinity : limit.readUIntBE(0, Math.min(limit.length, 6));
}

function isAuthority(issuer: X509Certificate, atMs: number, below: number): boolean {
  const mayIssue = issuer.ca && maySignCode(usagesOf(issuer) ?? [anyUsage]);
  return mayIssue && pathLength(requireSound(issuer, atMs)) >= below;
}

/** Who is trusted, who may stand in between, and the time that counts. */
interface Authorities {
  readonly roots: readonly X509Certificate[];
  readonly others: readonly X509Certificate[];
  readonly atMs: number;
}

/** True if the certificate leads to a root over authorities that were valid then; `below` of them were passed. */
function leadsToRoot(certificate: X509Certificate, authorities: Authorities, below = 0): boolean {
  const { roots, others, atMs } = authorities;
  const issues = (issuer: X509Certificate): boolean =>
    certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey) && isAuthority(issuer, atMs, below);
  if (roots.some(issues)) return true;
  return below < maxBetween && others.some((issuer) => issues(issuer) && leadsToRoot(issuer, authorities, below + 1));
}

function emailsOf(extensions: ReadonlyMap<string, Extension>): readonly string[] {
  const names = extensions.get(extensionIds.subjectAltName)?.value;
  if (names === undefined) return [];
  return readSequence(names).flatMap(({ tag, content }) => (tag === emailTag ? [content.toString("latin1")] : []));
}

/** Who vouched for the signer's identity; the two spellings may not differ. */
function issuerOf(extensions: ReadonlyMap<string, Extension>): string | undefined {
  const bare = extensions.get(extensionIds.issuerText)?.value.toString("utf8");
  const value = extensions.get(extensionIds.issuer)?.value;
  const [named] = value === undefined ? [] : readDer(value);
  if (named === undefined) return bare;
  const text = named.tag === utf8Tag ? named.content.toString("utf8") : undefined;
  return bare === undefined || bare === text ? text : undefined;
}

function isForHost(certificate: X509Certificate, name: string): boolean {
  if (isIP(name) !== 0) return certificate.checkIP(name) !== undefined;
  return certificate.checkHost(name, { subject: "never", partialWildcards: false }) !== undefined;
}

/** Whose certificate it is. @throws {Error} if it is not one of those that are wanted. */
function requireIdentity(
  { oidcIssuer, subjectEmail, subjectHostname }: CertificateTrust,
  certificate: X509Certificate,
  extensions: ReadonlyMap<string, Extension>,
): void {
  const issuer = issuerOf(extensions);
  if (oidcIssuer !== undefined && issuer !== oidcIssuer)
    throw new Error(`its signer is known by another issuer: ${JSON.stringify(issuer)}`);
  const emails = emailsOf(extensions);
  if (subjectEmail !== undefined && !emails.includes(subjectEmail))
    throw new Error(`it is signed by ${JSON.stringify(emails).slice(0, 256)}`);
  if (subjectHostname !== undefined && !isForHost(certificate, subjectHostname))
    throw new Error(`it is not signed by ${JSON.stringify(subjectHostname)}`);
}

/**
 * Checks a certificate for code signing, as Fulcio or an operator's own authority issues them, at the time of its use.
 *
 * @returns its key.
 * @throws {Error} with the reason if it does not hold.
 * @see https://github.com/sigstore/fulcio/blob/v1.7.1/docs/certificate-specification.md
 */
export function verifyCertificate(trust: CertificateTrust, use: CertificateUse): KeyObject {
  const atMs = use.signedAtMs;
  const [certificate, more] = certificatesOf(use.certificate);
  if (certificate === undefined || more !== undefined) throw new Error("it does not come with one certificate");
  const extensions = requireSound(certificate, atMs);
  if (!maySignCode(usagesOf(certificate) ?? [])) throw new Error("its certificate is not for signing");
  const others = [...trust.intermediates, ...certificatesOf(use.chain)];
  if (!leadsToRoot(certificate, { roots: trust.roots, others, atMs }))
    throw new Error("its certificate is of another authority");
  requireIdentity(trust, certificate, extensions);
  return certificate.publicKey;
}
