import { fileURLToPath } from "node:url";

import { readFileBounded } from "../../native/index.ts";
import type { Digest } from "../digest.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { headerOf, type Http, readBody } from "../registry/http.ts";
import type { RetryPolicy } from "../registry/limits.ts";
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

const maxRedirects = 5;
const redirectStatuses: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** A GET without credentials; redirects may not leave TLS. `undefined` for what is not there. */
async function fetchFile({ http, signal }: Lookaside, from: URL): Promise<Buffer | undefined> {
  let url = from;
  for (let hop = 0; hop <= maxRedirects; hop += 1) {
    const response = await http.request(url, { headers: { accept: "*/*" } }, signal);
    const body = await readBody(response, maxSignatureBytes, "a signature");
    if (response.status === 404) return undefined;
    if (response.status === 200) return body;
    const location = headerOf(response, "location") ?? "";
    if (!redirectStatuses.has(response.status) || !URL.canParse(location, url.href))
      throw new RegistryFailure(
        response.status >= 500 ? "server-error" : "unexpected",
        `the signatures' server "${url.host}" answered ${response.status}`,
      );
    const target = new URL(location, url.href);
    if (target.protocol !== "https:" && target.protocol !== from.protocol)
      throw new RegistryFailure("invalid", `the signatures' server redirected to "${target.host}" without TLS`);
    url = target;
  }
  throw new RegistryFailure("invalid", `the signatures' server redirected more than ${maxRedirects} times`);
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
