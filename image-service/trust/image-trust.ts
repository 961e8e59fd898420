import { Code, CriError } from "../../cri-api/index.ts";
import type { ImageHost } from "../host.ts";
import type { ImageReference } from "../reference.ts";
import { makeEmptyFolder } from "../scratch-folder.ts";
import type { Policy } from "./policy.ts";
import { type FoundPolicy, type PolicyPlaces, readAllPolicies, readPolicyFor } from "./policy-files.ts";
import { requirementsFor } from "./policy-scope.ts";
import { type Candidate, requireAllowed, requireNoRefusal, type VerifyParts, wantsSignature } from "./verify.ts";

/** What a signature policy says of images. Failures start with `SignatureValidationFailed`, kubelet's word for them. */
export interface ImageTrust {
  /** The policy that counts in a namespace. @throws {CriError} `Unknown` where there is none that can be used. */
  policyFor(namespace: string, what: string): Promise<FoundPolicy>;
  /** Refuses what no signature could change. @throws {CriError} `Unknown`. */
  requireNoRefusal(policy: Policy, reference: ImageReference, what: string): void;
  /** True if signatures of this image count in some namespace of the node. */
  wantsSignatures(reference: ImageReference): Promise<boolean>;
  /** Holds an image and its signatures against a policy; asks no network. @throws {CriError} `Unknown`. */
  requireAllowed(policy: Policy, candidate: Candidate, what: string, signal: AbortSignal): Promise<void>;
}

/** The error of an image that may not run; only under `Unknown` does kubelet look for its first word. */
export function signatureFailure(what: string, thrown: unknown): CriError {
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  return new CriError(Code.Unknown, `SignatureValidationFailed: ${what}: ${why}`, { cause: thrown });
}

interface ImageTrustParts extends VerifyParts {
  readonly host: VerifyParts["host"] & Pick<ImageHost, "removeTree">;
  readonly places: PolicyPlaces;
}

/** Opens it; `directory` is for GnuPG, and emptied. */
export async function openImageTrust(parts: ImageTrustParts): Promise<ImageTrust> {
  const { host, places, directory } = parts;
  await makeEmptyFolder(host, directory);
  return {
    async policyFor(namespace, what) {
      try {
        return await readPolicyFor(host, places, namespace);
      } catch (thrown) {
        throw signatureFailure(what, thrown);
      }
    },
    requireNoRefusal(policy, reference, what) {
      try {
        requireNoRefusal(requirementsFor(policy, reference));
      } catch (thrown) {
        throw signatureFailure(what, thrown);
      }
    },
    async wantsSignatures(reference) {
      const policies = await readAllPolicies(host, places);
      return policies.some((policy) => wantsSignature(requirementsFor(policy, reference)));
    },
    async requireAllowed(policy, candidate, what, signal) {
      try {
        await requireAllowed(parts, requirementsFor(policy, candidate.reference), candidate, signal);
      } catch (thrown) {
        signal.throwIfAborted();
        throw signatureFailure(what, thrown);
      }
    },
  };
}
