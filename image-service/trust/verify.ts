import type { ImageHost } from "../host.ts";
import type { ImageReference } from "../reference.ts";
import { type GpgParts, openSignedMessage } from "./gpg.ts";
import type { KeySource, Requirement } from "./policy.ts";
import { matchesIdentity } from "./signed-identity.ts";
import type { ImageSignature } from "./signature.ts";
import { openSigstoreSignature } from "./sigstore.ts";
import { parseClaim } from "./simple-signing.ts";

export interface VerifyParts extends GpgParts {
  readonly host: Pick<ImageHost, "run" | "which" | "readFileBounded">;
}

/** What is to be allowed: an image by the name it is asked for, and the signatures that came with it. */
export interface Candidate {
  readonly reference: ImageReference;
  readonly signatures: readonly ImageSignature[];
}

type Signed = Extract<Requirement, { type: "signedBy" | "sigstoreSigned" }>;

const signatureKinds = { signedBy: "simple-signing", sigstoreSigned: "sigstore" } as const;
const maxKeyBytes = 1 << 20;

/** Reads keys at each use, so that a changed file counts at once. @throws {Error} for a file that is not there. */
async function readKeys({ host }: VerifyParts, source: KeySource): Promise<readonly Buffer[]> {
  if ("datas" in source) return source.datas;
  return await Promise.all(
    source.paths.map(async (path) => {
      const keys = await host.readFileBounded(path, maxKeyBytes);
      if (keys === undefined) throw new Error(`the key file ${JSON.stringify(path)} of the policy is not there`);
      return keys;
    }),
  );
}

/** What the signature signs, once it is known to be made by whom the requirement trusts. */
async function openSignature(
  parts: VerifyParts,
  requirement: Signed,
  signature: ImageSignature,
  signal: AbortSignal,
): Promise<Buffer> {
  const read = (source: KeySource): Promise<readonly Buffer[]> => readKeys(parts, source);
  if (requirement.type === "signedBy" && signature.kind === "simple-signing")
    return await openSignedMessage(
      parts,
      await read(requirement.keys),
      Buffer.from(signature.message, "base64"),
      signal,
    );
  if (requirement.type === "sigstoreSigned" && signature.kind === "sigstore")
    return await openSigstoreSignature(requirement, signature, read);
  throw new Error("it is of another kind");
}

async function requireSignature(
  parts: VerifyParts,
  requirement: Signed,
  { reference, signatures }: Candidate,
  signal: AbortSignal,
): Promise<void> {
  const kind = signatureKinds[requirement.type];
  const reasons = new Set<string>();
  for (const signature of signatures.filter((each) => each.kind === kind)) {
    try {
      const claim = parseClaim(kind, await openSignature(parts, requirement, signature, signal));
      if (claim.manifestDigest !== signature.subject) reasons.add("it is for another manifest");
      else if (matchesIdentity(requirement.signedIdentity, reference, claim.dockerReference)) return;
      else reasons.add(`it is for ${JSON.stringify(claim.dockerReference.slice(0, 256))}`);
    } catch (thrown) {
      signal.throwIfAborted();
      reasons.add(thrown instanceof Error ? thrown.message : String(thrown));
    }
  }
  const why = reasons.size === 0 ? "there is none" : [...reasons].slice(0, 4).join("; ");
  throw new Error(`the policy wants a signature (${requirement.type}), and no signature holds: ${why}`);
}

/** What no signature can change. @throws {Error} where the requirements refuse every image. */
export function requireNoRefusal(requirements: readonly Requirement[]): void {
  for (const requirement of requirements) {
    if (requirement.type === "reject") throw new Error("the policy rejects it");
    if (requirement.type === "unsupported") throw new Error(`the policy wants ${requirement.what}, which is not built`);
  }
}

/** True if signatures decide. */
export function wantsSignature(requirements: readonly Requirement[]): boolean {
  return requirements.some(({ type }) => type === "signedBy" || type === "sigstoreSigned");
}

/**
 * Holds an image against the requirements that apply to it: all have to be met.
 *
 * @throws {Error} saying which one is not, and why.
 */
export async function requireAllowed(
  parts: VerifyParts,
  requirements: readonly Requirement[],
  candidate: Candidate,
  signal: AbortSignal,
): Promise<void> {
  requireNoRefusal(requirements);
  for (const requirement of requirements)
    if (requirement.type === "signedBy" || requirement.type === "sigstoreSigned")
      await requireSignature(parts, requirement, candidate, signal);
}
