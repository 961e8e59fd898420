import * as v from "valibot";

import { type Digest, isDigest } from "../digest.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What a signature says: this manifest, under this name. */
export interface SignedClaim {
  readonly manifestDigest: Digest;
  readonly dockerReference: string;
}

const claimTypes = {
  "simple-signing": "atomic container signature",
  sigstore: "cosign container image signature",
} as const;

const optional = v.looseObject({
  creator: v.optional(v.string()),
  timestamp: v.optional(v.pipe(v.number(), v.integer())),
});

function payloadOf(
  kind: keyof typeof claimTypes,
): v.GenericSchema<unknown, { critical: v.InferOutput<typeof critical> }> {
  return v.strictObject({
    critical: v.strictObject({ ...critical.entries, type: v.literal(claimTypes[kind]) }),
    optional: kind === "sigstore" ? v.nullable(optional) : optional,
  });
}
const critical = v.strictObject({
  type: v.string(),
  image: v.strictObject({
    "docker-manifest-digest": v.custom<Digest>((value) => typeof value === "string" && isDigest(value)),
  }),
  identity: v.strictObject({ "docker-reference": v.string() }),
});
const payloads = { "simple-signing": payloadOf("simple-signing"), sigstore: payloadOf("sigstore") };

/**
 * Reads the payload of a signature whose author is known already. Anything in it that is not understood refuses it.
 *
 * @throws {Error} naming the first member that is wrong.
 * @see https://github.com/containers/image/blob/v5.36.0/docs/containers-signature.5.md
 */
export function parseClaim(kind: keyof typeof claimTypes, payload: Uint8Array): SignedClaim {
  const parsed = v.safeParse(payloads[kind], parseStrictJson(payload));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new Error(`its payload is malformed at "${v.getDotPath(issue) ?? ""}"`);
  }
  const { image, identity } = parsed.output.critical;
  return { manifestDigest: image["docker-manifest-digest"], dockerReference: identity["docker-reference"] };
}
