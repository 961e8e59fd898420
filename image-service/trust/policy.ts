import * as v from "valibot";

import { canonicalPlace, parseNamedReference } from "../reference.ts";
import { parseStrictJson } from "./strict-json.ts";

/** Which identity a signature has to claim for the image. */
export type SignedIdentity =
  | { readonly type: "matchExact" | "matchRepoDigestOrExact" | "matchRepository" }
  | { readonly type: "exactReference"; readonly dockerReference: string }
  | { readonly type: "exactRepository"; readonly dockerRepository: string }
  | { readonly type: "remapIdentity"; readonly prefix: string; readonly signedPrefix: string };

/** Keys or certificates: files to read when they are needed, or their content. */
export type KeySource = { readonly paths: readonly string[] } | { readonly datas: readonly Buffer[] };

/** Who may have been given a certificate, and by whom. */
export interface FulcioTrust {
  readonly ca: KeySource;
  readonly oidcIssuer: string;
  readonly subjectEmail: string;
}

/** Who may have been given a certificate by an authority of the operator's own, and by whom. */
export interface PkiTrust {
  readonly roots: KeySource;
  readonly intermediates: KeySource | undefined;
  readonly subjectEmail: string | undefined;
  readonly subjectHostname: string | undefined;
}

/** One requirement; an image has to meet all of those that apply to it. */
export type Requirement =
  | { readonly type: "insecureAcceptAnything" | "reject" }
  | { readonly type: "signedBy"; readonly keys: KeySource; readonly signedIdentity: SignedIdentity }
  | {
      readonly type: "sigstoreSigned";
      readonly signer: { readonly keys: KeySource } | { readonly fulcio: FulcioTrust } | { readonly pki: PkiTrust };
      readonly rekor: KeySource | undefined;
      readonly signedIdentity: SignedIdentity;
    }
  /** Well-formed, but nothing that we can check: it refuses every image. */
  | { readonly type: "unsupported"; readonly what: string };

/** A signature verification policy. */
export interface Policy {
  readonly default: readonly Requirement[];
  /** Requirements by transport and scope. */
  readonly transports: ReadonlyMap<string, ReadonlyMap<string, readonly Requirement[]>>;
}

const text = v.pipe(v.string("must be a string"), v.nonEmpty("must not be empty"));
const path = v.pipe(text, v.regex(/^\/[^\0]*$/, "must be an absolute path"));
const base64 = v.pipe(
  v.string("must be a string"),
  v.regex(
    /^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$|^(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)$/,
    "must be base64",
  ),
  v.transform((data) => Buffer.from(data, "base64")),
);
const paths = v.pipe(v.array(path, "must be a list of paths"), v.nonEmpty("must not be empty"));
const datas = v.pipe(v.array(base64, "must be a list"), v.nonEmpty("must not be empty"));

function isReference(value: string, wanted: "reference" | "repository"): boolean {
  try {
    const { tag, digest } = parseNamedReference(value);
    return (wanted === "repository") === (tag === undefined && digest === undefined);
  } catch {
    return false;
  }
}

/** A host, or a repository or one of its parents, as it stands at the start of a full name. */
const prefix = v.pipe(
  text,
  v.regex(
    /^[a-zA-Z0-9[\]:.-]+(?::[0-9]+)?(?:\/[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*)*$/,
    "must be a host or a repository",
  ),
);
const signedIdentity = v.variant(
  "type",
  [
    v.strictObject({ type: v.picklist(["matchExact", "matchRepoDigestOrExact", "matchRepository"]) }),
    v.strictObject({
      type: v.literal("exactReference"),
      dockerReference: v.pipe(
        text,
        v.check((value) => isReference(value, "reference"), "must be an image name with a tag or a digest"),
      ),
    }),
    v.strictObject({
      type: v.literal("exactRepository"),
      dockerRepository: v.pipe(
        text,
        v.check((value) => isReference(value, "repository"), "must be an image name without tag and digest"),
      ),
    }),
    v.strictObject({ type: v.literal("remapIdentity"), prefix, signedPrefix: prefix }),
  ],
  "is no known type",
);
const identityOrDefault = v.optional(signedIdentity, { type: "matchRepoDigestOrExact" });

/** The one of several fields that is there. */
interface Given {
  readonly path?: string | undefined;
  readonly paths?: readonly string[] | undefined;
  readonly data?: Buffer | undefined;
  readonly datas?: readonly Buffer[] | undefined;
}

function sourceOf(given: Given): KeySource | undefined {
  if (given.path !== undefined) return { paths: [given.path] };
  if (given.paths !== undefined) return { paths: given.paths };
  if (given.data !== undefined) return { datas: [given.data] };
  return given.datas === undefined ? undefined : { datas: given.datas };
}

function countOf(...values: readonly unknown[]): number {
  return values.filter((value) => value !== undefined).length;
}

const signedBy = v.pipe(
  v.strictObject({
    type: v.literal("signedBy"),
    keyType: v.literal("GPGKeys", 'must be "GPGKeys"'),
    keyPath: v.optional(path),
    keyPaths: v.optional(paths),
    keyData: v.optional(base64),
    signedIdentity: identityOrDefault,
  }),
  v.check(
    (given) => countOf(given.keyPath, given.keyPaths, given.keyData) === 1,
    "needs one of keyPath, keyPaths, keyData",
  ),
  v.transform(({ type, keyPath, keyPaths, keyData, signedIdentity: identity }): Requirement => {
    const keys = sourceOf({ path: keyPath, paths: keyPaths, data: keyData }) ?? { paths: [] };
    return { type, keys, signedIdentity: identity };
  }),
);
const fulcio = v.pipe(
  v.strictObject({
    caPath: v.optional(path),
    caData: v.optional(base64),
    oidcIssuer: text,
    subjectEmail: text,
  }),
  v.check(({ caPath, caData }) => countOf(caPath, caData) === 1, "needs one of caPath, caData"),
  v.transform(({ caPath, caData, oidcIssuer, subjectEmail }): FulcioTrust => {
    const ca = sourceOf({ path: caPath, data: caData }) ?? { paths: [] };
    return { ca, oidcIssuer, subjectEmail };
  }),
);
const pki = v.pipe(
  v.strictObject({
    caRootsPath: v.optional(path),
    caRootsData: v.optional(base64),
    caIntermediatesPath: v.optional(path),
    caIntermediatesData: v.optional(base64),
    subjectEmail: v.optional(text),
    subjectHostname: v.optional(text),
  }),
  v.check((given) => countOf(given.caRootsPath, given.caRootsData) === 1, "needs one of caRootsPath, caRootsData"),
  v.check(
    (given) => countOf(given.caIntermediatesPath, given.caIntermediatesData) <= 1,
    "has both caIntermediatesPath and caIntermediatesData",
  ),
  v.check((given) => countOf(given.subjectEmail, given.subjectHostname) > 0, "needs subjectEmail or subjectHostname"),
  v.transform(
    ({ subjectEmail, subjectHostname, ...given }): PkiTrust => ({
      roots: sourceOf({ path: given.caRootsPath, data: given.caRootsData }) ?? { paths: [] },
      intermediates: sourceOf({ path: given.caIntermediatesPath, data: given.caIntermediatesData }),
      subjectEmail,
      subjectHostname,
    }),
  ),
);
const sigstoreFields = v.strictObject({
  type: v.literal("sigstoreSigned"),
  keyPath: v.optional(path),
  keyPaths: v.optional(paths),
  keyData: v.optional(base64),
  keyDatas: v.optional(datas),
  fulcio: v.optional(fulcio),
  pki: v.optional(pki),
  rekorPublicKeyPath: v.optional(path),
  rekorPublicKeyPaths: v.optional(paths),
  rekorPublicKeyData: v.optional(base64),
  rekorPublicKeyDatas: v.optional(datas),
  signedIdentity: identityOrDefault,
});
type SigstoreFields = v.InferOutput<typeof sigstoreFields>;

function keysOf(given: SigstoreFields): KeySource | undefined {
  return sourceOf({ path: given.keyPath, paths: given.keyPaths, data: given.keyData, datas: given.keyDatas });
}

function signerOf(given: SigstoreFields): Extract<Requirement, { type: "sigstoreSigned" }>["signer"] {
  if (given.fulcio !== undefined) return { fulcio: given.fulcio };
  return given.pki === undefined ? { keys: keysOf(given) ?? { paths: [] } } : { pki: given.pki };
}

function rekorOf(given: SigstoreFields): KeySource | undefined {
  const { rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData, rekorPublicKeyDatas } = given;
  return sourceOf({
    path: rekorPublicKeyPath,
    paths: rekorPublicKeyPaths,
    data: rekorPublicKeyData,
    datas: rekorPublicKeyDatas,
  });
}

const sigstoreSigned = v.pipe(
  sigstoreFields,
  v.check(
    (given) => countOf(given.keyPath, given.keyPaths, given.keyData, given.keyDatas, given.fulcio, given.pki) === 1,
    "needs one of keyPath, keyPaths, keyData, keyDatas, fulcio, pki",
  ),
  v.check(
    (given) =>
      countOf(
        given.rekorPublicKeyPath,
        given.rekorPublicKeyPaths,
        given.rekorPublicKeyData,
        given.rekorPublicKeyDatas,
      ) <= 1,
    "has more than one of the fields that name Rekor's key",
  ),
  v.check((given) => given.fulcio === undefined || rekorOf(given) !== undefined, "with fulcio needs Rekor's key"),
  v.check((given) => given.pki === undefined || rekorOf(given) === undefined, "with pki takes no key of Rekor's"),
  v.transform((given): Requirement => {
    const { type, signedIdentity: identity } = given;
    return { type, signer: signerOf(given), rekor: rekorOf(given), signedIdentity: identity };
  }),
);
const signedBaseLayer = v.pipe(
  v.strictObject({ type: v.literal("signedBaseLayer"), baseLayerIdentity: signedIdentity }),
  v.transform((): Requirement => ({ type: "unsupported", what: "signedBaseLayer" })),
);
const requirement = v.variant(
  "type",
  [
    v.strictObject({ type: v.picklist(["insecureAcceptAnything", "reject"]) }),
    signedBy,
    sigstoreSigned,
    signedBaseLayer,
  ],
  "is no known type",
);
const requirements = v.pipe(v.array(requirement, "must be a list"), v.nonEmpty("must not be empty"));
/** Maps, since a scope may have any name. */
function mapOf<Schema extends v.GenericSchema>(
  value: Schema,
): v.GenericSchema<unknown, ReadonlyMap<string, v.InferOutput<Schema>>> {
  return v.pipe(
    v.unknown(),
    v.check((given) => typeof given === "object" && given !== null && !Array.isArray(given), "must be an object"),
    v.transform((given) => new Map(Object.entries(given as object))),
    v.map(v.string(), value),
  );
}
/** The scopes of registries by the one spelling of their hosts. */
function spellScopes<T>(
  transports: ReadonlyMap<string, ReadonlyMap<string, T>>,
): ReadonlyMap<string, ReadonlyMap<string, T>> {
  const scopes = [...(transports.get("docker") ?? [])];
  return new Map([
    ...transports,
    ["docker", new Map(scopes.map(([scope, value]) => [canonicalPlace(scope), value] as const))],
  ]);
}
const transports = v.pipe(
  mapOf(mapOf(requirements)),
  v.check(
    (given) => (spellScopes(given).get("docker")?.size ?? 0) === (given.get("docker")?.size ?? 0),
    "has one scope of docker twice, spelled differently",
  ),
  v.transform(spellScopes),
);
const policy = v.strictObject({ default: requirements, transports: v.optional(transports, {}) });

/**
 * Reads a policy file. As its man page demands, anything unknown, double or otherwise wrong refuses the whole file.
 *
 * @throws {Error} naming the first thing that is wrong.
 * @see https://github.com/containers/image/blob/v5.36.0/docs/containers-policy.json.5.md
 */
export function parsePolicy(bytes: Uint8Array): Policy {
  const parsed = v.safeParse(policy, parseStrictJson(bytes));
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const place = (issue.path ?? []).map(({ key }: { key: unknown }) => String(key)).join(".");
  throw new Error(`${place === "" ? "the document" : JSON.stringify(place)}: ${issue.message}`);
}
