import { CriError, type Logger, toCriError } from "../cri-api/index.ts";
import type { TrustConfig } from "./config.ts";
import type { Digest } from "./digest.ts";
import type { ImageReference } from "./reference.ts";
import type { ImageTrust } from "./trust/image-trust.ts";
import type { Policy } from "./trust/policy.ts";
import { type ImageSignature, mergeSignatures } from "./trust/signature.ts";
import type { RegistryAccess } from "./worker/protocol.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

/** A pull, as far as trust is concerned. */
export interface TrustedPull {
  readonly parts: {
    readonly config: { readonly trust: TrustConfig };
    readonly pool: WorkerPool;
    readonly trust: ImageTrust;
    readonly log: Logger;
  };
  readonly reference: ImageReference;
  readonly what: string;
  /** What the pod's namespace allows. */
  readonly policy: Policy;
  readonly signal: AbortSignal;
}

/** What a name has turned out to stand for. */
export interface TrustSubject {
  /** The manifest, and the index that it was chosen from: a signature of that names the manifest by its digest. */
  readonly subjects: readonly Digest[];
  /** Signatures that the store has of it. */
  readonly kept: readonly ImageSignature[];
}

interface Found {
  readonly signatures: readonly ImageSignature[];
  /** Why there may be more. */
  readonly failure?: CriError;
  /** What else there is. */
  readonly hint?: string;
}

const bundleHint =
  "it has signatures in sigstore's bundle format, which name no image; cosign sign --new-bundle-format=false makes others";

/** Looks for signatures, if they count anywhere on the node. */
async function fetchSignatures(pull: TrustedPull, access: RegistryAccess, subjects: readonly Digest[]): Promise<Found> {
  const { parts, reference, what, signal } = pull;
  if (!(await parts.trust.wantsSignatures(reference))) return { signatures: [] };
  const { registriesDirectory } = parts.config.trust;
  const unique = [...new Set(subjects)];
  try {
    const job = { kind: "signatures", what, access, reference, subjects: unique, registriesDirectory } as const;
    const { signatures, hasBundles } = await parts.pool.run(job, { signal });
    return { signatures, ...(hasBundles ? { hint: bundleHint } : {}) };
  } catch (thrown) {
    signal.throwIfAborted();
    const failure = toCriError(thrown);
    return { signatures: [], failure, hint: `signatures cannot be read: ${failure.message}` };
  }
}

/**
 * Holds what a name stands for against the policy, before anything of it is stored.
 *
 * @returns the signatures to keep with the image, for whoever asks a policy later.
 * @throws {CriError} `Unknown` starting with `SignatureValidationFailed: `.
 */
export async function requireTrusted(
  pull: TrustedPull,
  access: RegistryAccess,
  { subjects, kept }: TrustSubject,
): Promise<readonly ImageSignature[]> {
  const { parts, policy, reference, what, signal } = pull;
  const { signatures: found, failure, hint } = await fetchSignatures(pull, access, subjects);
  const signatures = mergeSignatures(kept, found);
  if (failure !== undefined) parts.log.warn({ error: failure.message }, "signatures cannot be read");
  try {
    await parts.trust.requireAllowed(policy, { reference, signatures }, what, signal);
  } catch (thrown) {
    if (hint === undefined || !(thrown instanceof CriError)) throw thrown;
    throw new CriError(thrown.code, `${thrown.message} (${hint})`, { cause: thrown });
  }
  return signatures;
}
