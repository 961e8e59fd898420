import { createHash, createPublicKey, type KeyObject, X509Certificate } from "node:crypto";

import * as v from "valibot";

import { isSignedBy } from "./sigstore-key.ts";
import { parseStrictJson } from "./strict-json.ts";

const base64 = v.pipe(
  v.string(),
  v.base64(),
  v.transform((text) => Buffer.from(text, "base64")),
);
const integer = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const bundleSchema = v.strictObject({
  SignedEntryTimestamp: base64,
  Payload: v.strictObject({ body: v.string(), integratedTime: integer, logIndex: integer, logID: v.string() }),
});
const entrySchema = v.object({
  apiVersion: v.literal("0.0.1"),
  kind: v.literal("hashedrekord"),
  spec: v.object({
    data: v.object({ hash: v.object({ algorithm: v.literal("sha256"), value: v.string() }) }),
    signature: v.object({ content: base64, publicKey: v.object({ content: base64 }) }),
  }),
});

/** What the log has to have recorded. */
export interface LoggedSignature {
  readonly payload: Buffer;
  readonly signature: Buffer;
  /** PEM of the key, or of the certificate, that the signature is made with. */
  readonly signer: string;
}

/** The key or certificate in PEM, in DER. */
function derOf(pem: string): Buffer {
  if (pem.includes("BEGIN CERTIFICATE")) return new X509Certificate(pem).raw;
  return createPublicKey(pem).export({ type: "spki", format: "der" });
}

function parse<Schema extends v.GenericSchema>(schema: Schema, bytes: Buffer): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, parseStrictJson(bytes));
  if (parsed.success) return parsed.output;
  throw new Error(`its log entry is malformed at "${v.getDotPath(parsed.issues[0]) ?? ""}"`);
}

/**
 * Checks that a transparency log has recorded a signature, by the promise that came with it.
 *
 * @returns when that was, in milliseconds.
 * @throws {Error} with the reason if it is not so.
 * @see https://github.com/sigstore/cosign/blob/v2.5.0/specs/SIGNATURE_SPEC.md#properties
 */
export function verifyLogEntry(
  logKeys: readonly KeyObject[],
  bundle: string | undefined,
  logged: LoggedSignature,
): number {
  if (bundle === undefined) throw new Error("it is in no transparency log");
  const { SignedEntryTimestamp: promise, Payload: payload } = parse(bundleSchema, Buffer.from(bundle));
  const { body, integratedTime, logID, logIndex } = payload;
  const canonical = Buffer.from(JSON.stringify({ body, integratedTime, logID, logIndex })); // RFC 8785: by name
  if (!logKeys.some((key) => isSignedBy(key, canonical, promise))) throw new Error("its log entry is of another log");

  const { spec } = parse(entrySchema, Buffer.from(body, "base64"));
  const isSame =
    spec.signature.content.equals(logged.signature) &&
    spec.data.hash.value === createHash("sha256").update(logged.payload).digest("hex") &&
    derOf(spec.signature.publicKey.content.toString("utf8")).equals(derOf(logged.signer));
  if (!isSame) throw new Error("its log entry is of another signature");
  return integratedTime * 1000;
}
