import { fileURLToPath } from "node:url";

import { readFileBounded } from "../../native/index.ts";
import type { Digest } from "../digest.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { type Http, readBody } from "../registry/http.ts";
import type { RetryPolicy } from "../registry/limits.ts";
import { getPublicly } from "../registry/redirects.ts";
import { retrying } from "../registry/retry.ts";
import { type ImageSignature, maxSignatureBytes, maxSignatures } from "./signature.ts";

export interface Lookaside {
  readonly http: Http;
  /** URL of the folder that holds all signatures. */
  readonly base: string;
  /** Repository without its host. */
  readonly path: string;
  readonly policy: RetryPolicy;
  readonly signal: AbortSignal;
}

/** `undefined` for what is not there. */
async function fetchFile({ http, signal }: Lookaside, url: URL): Promise<Buffer | undefined> {
  const response = await getPublicly(http, url, { accept: "*/*" }, signal);
  const body = await readBody(response, maxSignatureBytes, "a signature");
  if (response.status === 404) return undefined;
  if (response.status === 200) return body;
  throw new RegistryFailure(
    response.status >= 500 ? "server-error" : "unexpected",
    `the signatures' server "${url.host}" answered ${response.status}`,
  );
}

async function readOne(lookaside: Lookaside, url: URL): Promise<Buffer | undefined> {
  return url.protocol === "file:"
    ? await readFileBounded(fileURLToPath(url), maxSignatureBytes)
    : await retrying(lookaside.policy, lookaside.signal, () => fetchFile(lookaside, url));
}

/**
 * OpenPGP signatures of a manifest, from a place beside the registry: `signature-1`, `signature-2` and so on until one
 * is not there.
 *
 * @see https://github.com/containers/image/blob/v5.36.0/docs/signature-protocols.md
 */
export async function readLookaside(lookaside: Lookaside, subject: Digest): Promise<readonly ImageSignature[]> {
  const folder = `${lookaside.base.replace(/\/+$/, "")}/${lookaside.path}@${subject.replace(":", "=")}`;
  const signatures: ImageSignature[] = [];
  while (signatures.length < maxSignatures) {
    const found = await readOne(lookaside, new URL(`${folder}/signature-${signatures.length + 1}`));
    if (found === undefined) break;
    signatures.push({ kind: "simple-signing", subject, message: found.toString("base64") });
  }
  return signatures;
}
