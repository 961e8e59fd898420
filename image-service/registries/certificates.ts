import { X509Certificate, createPrivateKey } from "node:crypto";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";

import type { TlsSettings } from "../registry/endpoint.ts";
import { FileIssue } from "./file-issue.ts";
import { hostOfDirectory } from "./hosts-toml.ts";
import type { ReadFile } from "./reloading.ts";

/** What a folder of `certs.d` holds for a host. */
export type Certificates = Pick<TlsSettings, "authorities" | "clientCertificates">;

/** Names in a folder; undefined where there is none. */
async function namesIn(directory: string): Promise<readonly string[] | undefined> {
  try {
    return (await readdir(directory)).sort();
  } catch {
    return undefined;
  }
}

/** The certificates and keys for a host: those of the first folder that knows it. */
export async function certificatePaths(directories: readonly string[], host: string): Promise<readonly string[]> {
  for (const directory of directories) {
    const folder = (await namesIn(directory))?.find((name) => hostOfDirectory(name) === host);
    const names = folder === undefined ? undefined : await namesIn(join(directory, folder));
    if (folder === undefined || names === undefined) continue;
    return names.filter((name) => /\.(?:crt|cert|key)$/.test(name)).map((name) => join(directory, folder, name));
  }
  return [];
}

function isCertificate(block: string): boolean {
  try {
    return new X509Certificate(block).fingerprint256 !== "";
  } catch {
    return false;
  }
}

/** Holds each certificate of a bundle against what one must be. @throws {FileIssue} */
export function checkCertificates({ path, text }: ReadFile): string {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new FileIssue(`${path}: holds no certificate`);
  if (!blocks.every(isCertificate)) throw new FileIssue(`${path}: holds a certificate that is malformed`);
  return text;
}

/** A client's certificate and its key, which must belong together. @throws {FileIssue} that tells nothing of the key */
export function checkPair(certificate: ReadFile, key: ReadFile): { certificate: string; key: string } {
  checkCertificates(certificate);
  let isPair: boolean;
  try {
    isPair = new X509Certificate(certificate.text).checkPrivateKey(createPrivateKey(key.text));
  } catch {
    throw new FileIssue(`${key.path}: holds no private key that can be used`);
  }
  if (!isPair) throw new FileIssue(`${key.path}: is not the key of ${basename(certificate.path)}`);
  return { certificate: certificate.text, key: key.text };
}

/**
 * `*.crt` are authorities, `NAME.cert` with `NAME.key` a client certificate.
 *
 * @throws {FileIssue}
 * @see containers-certs.d(5)
 */
export function parseCertificates(files: readonly ReadFile[]): Certificates {
  const ending = (suffix: string): readonly ReadFile[] => files.filter(({ path }) => path.endsWith(suffix));
  const keyOf = (path: string): string => path.replace(/cert$/, "key");
  const certificates = ending(".cert");
  for (const { path } of ending(".key"))
    if (!certificates.some((certificate) => keyOf(certificate.path) === path))
      throw new FileIssue(`${path}: its certificate ${basename(path).replace(/key$/, "cert")} is missing`);
  return {
    authorities: ending(".crt").map(checkCertificates),
    clientCertificates: certificates.map((certificate) => {
      const key = files.find(({ path }) => path === keyOf(certificate.path));
      if (key === undefined)
        throw new FileIssue(`${certificate.path}: its key is missing (authorities are named *.crt)`);
      return checkPair(certificate, key);
    }),
  };
}
