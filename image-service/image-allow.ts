import { type ImageReference, parseImageReference, quote, repositoryOf } from "./reference.ts";
import type { ImageName, StoredImage } from "./store/image-record.ts";
import { type ImageTrust, signatureFailure } from "./trust/image-trust.ts";

/** A container's wish to run an image. */
export interface ImageUse {
  readonly image: StoredImage;
  /** What the pod's author wrote; empty if that is not known. */
  readonly userSpecifiedImage: string;
  readonly namespace: string;
}

function referenceOf({ repository, tag, digest }: ImageName): ImageReference {
  return parseImageReference(tag === undefined ? `${repository}@${digest}` : `${repository}:${tag}`);
}

/** The name as it was asked for, if the image is known under that repository; it may have lost its tag since. */
function askedReference({ image, userSpecifiedImage }: ImageUse): ImageReference | undefined {
  try {
    const reference = parseImageReference(userSpecifiedImage);
    const repository = repositoryOf(reference);
    const { digest } = reference;
    const isKnown = image.names.some(
      (name) => name.repository === repository && (digest === undefined || digest === name.digest),
    );
    return isKnown ? reference : undefined;
  } catch {
    return undefined; // an id
  }
}

/**
 * Asks the namespace's policy once more when an image is used: another namespace, with another policy, may have pulled
 * it. Goes by what is kept with the image, without a network. An image asked for by its id may be any that it is known
 * as.
 *
 * @throws {CriError} `Unknown` starting with `SignatureValidationFailed: `.
 */
export async function requireImageAllowed(trust: ImageTrust, use: ImageUse, signal: AbortSignal): Promise<void> {
  const { image } = use;
  const what = `cannot run image ${quote(use.userSpecifiedImage || image.id)}`;
  const { policy } = await trust.policyFor(use.namespace, what);
  const asked = askedReference(use);
  const references = asked === undefined ? image.names.map(referenceOf) : [asked];
  const refusals: unknown[] = [];
  for (const reference of references) {
    try {
      await trust.requireAllowed(policy, { reference, signatures: image.signatures }, what, signal);
      return;
    } catch (thrown) {
      signal.throwIfAborted();
      refusals.push(thrown);
    }
  }
  if (refusals.length > 0) throw refusals[0];
  if (policy.default.some(({ type }) => type !== "insecureAcceptAnything"))
    throw signatureFailure(what, new Error("it has no name that the policy could allow"));
}
