import * as v from "valibot";

import type { Digest } from "../digest.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { headerOf, readBody } from "../registry/http.ts";
import { parseDocument } from "../registry/manifest.ts";
import { retrying } from "../registry/retry.ts";
import type { RegistrySession } from "../registry/session.ts";
import type { AttachmentRead } from "./attachments.ts";
import { type ImageSignature, maxSignatureBytes, maxSignatures } from "./signature.ts";

const document = v.object({
  signatures: v.nullish(
    v.array(
      v.object({
        schemaVersion: v.number(),
        type: v.optional(v.string(), "atomic"),
        content: v.pipe(v.string(), v.base64(), v.maxBytes(maxSignatureBytes)),
      }),
    ),
    [],
  ),
});

/** Asks a registry whether it keeps OpenPGP signatures itself, as OpenShift's does. */
export async function hasSignatureApi(
  session: RegistrySession,
  { limits, policy, signal }: AttachmentRead,
): Promise<boolean> {
  try {
    return await retrying(policy, signal, async () => {
      const response = await session.get("/v2/", {}, signal);
      await readBody(response, limits.tokenBytes, "the registry's greeting");
      return headerOf(response, "x-registry-supports-signatures") === "1";
    });
  } catch (thrown) {
    if (thrown instanceof RegistryFailure && !thrown.isRetriable) return false;
    throw thrown;
  }
}

/**
 * OpenPGP signatures of a manifest that the registry keeps.
 *
 * @throws {RegistryFailure} also for a document that is no list of them; without one there are simply none.
 * @see https://github.com/containers/image/blob/v5.36.0/docs/signature-protocols.md
 */
export async function readSignatureApi(
  session: RegistrySession,
  subject: Digest,
  { limits, policy, signal }: AttachmentRead,
): Promise<readonly ImageSignature[]> {
  const path = `/extensions/v2/${session.endpoint.repository}/signatures/${subject}`;
  const bytes = await retrying(policy, signal, async () => {
    const response = await session.get(path, { accept: "application/json" }, signal);
    return await readBody(response, limits.manifestBytes, "the list of signatures");
  });
  const { signatures } = parseDocument(document, bytes, "the list of signatures");
  return (signatures ?? [])
    .filter(({ schemaVersion, type }) => schemaVersion === 2 && type === "atomic")
    .slice(0, maxSignatures)
    .map(({ content }) => ({ kind: "simple-signing", subject, message: content }));
}
