import { readFile } from "node:fs/promises";
import type { SecureContextOptions } from "node:tls";

/** PEM files of the server, and of the authority its clients' certificates must come from. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly clientCaFile?: string;
}

/** @throws the file system's error if one cannot be read. */
export async function loadTlsOptions(files: TlsFiles): Promise<SecureContextOptions> {
  const cert = await readFile(files.certFile);
  const key = await readFile(files.keyFile);
  const ca = files.clientCaFile === undefined ? {} : { ca: await readFile(files.clientCaFile) };
  return { cert, key, ...ca, minVersion: "TLSv1.2" };
}
