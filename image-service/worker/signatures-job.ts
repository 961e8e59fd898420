import { type Attempt, failedAttempts, RegistryFailure } from "../registry/failure.ts";
import type { RegistrySession } from "../registry/session.ts";
import { readAttachments } from "../trust/attachments.ts";
import { hasBundles } from "../trust/bundles.ts";
import { type Lookaside, readLookaside } from "../trust/lookaside.ts";
import { readSignaturePlaces } from "../trust/registries-d.ts";
import type { ImageSignature } from "../trust/signature.ts";
import { hasSignatureApi, readSignatureApi } from "../trust/signature-api.ts";
import type { Digest } from "../digest.ts";
import type { FoundSignatures, SignaturesJob } from "./protocol.ts";
import { type JobEvents, withSessions } from "./registry-jobs.ts";

/** Attachments of a manifest, by the first host that has any; a mirror need not carry them. */
async function attachmentsOf(
  job: SignaturesJob,
  sessions: readonly RegistrySession[],
  subject: Digest,
  signal: AbortSignal,
): Promise<readonly ImageSignature[]> {
  const { limits, policy } = job.access;
  const attempts: Attempt[] = [];
  for (const session of sessions) {
    try {
      return await readAttachments(session, subject, { limits, policy, signal });
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure)) throw thrown;
      const { host, isMirror } = session.endpoint;
      attempts.push({ host, isMirror, failure: thrown });
    }
  }
  if (attempts.every(({ failure }) => failure.outcome === "absent")) return [];
  throw failedAttempts("no signatures", attempts);
}

/** OpenPGP signatures: of the registry, if it keeps them itself, or else beside it. */
async function simpleSignings(
  job: SignaturesJob,
  session: RegistrySession | undefined,
  lookaside: Lookaside,
  signal: AbortSignal,
): Promise<readonly ImageSignature[]> {
  const { limits, policy } = job.access;
  const isKeeper = session !== undefined && (await hasSignatureApi(session, { limits, policy, signal }));
  const reads = job.subjects.map(async (subject) => {
    if (isKeeper) return await noneIfAbsent(readSignatureApi(session, subject, { limits, policy, signal }));
    return await readLookaside(lookaside, subject);
  });
  return (await Promise.all(reads)).flat();
}

async function noneIfAbsent(read: Promise<readonly ImageSignature[]>): Promise<readonly ImageSignature[]> {
  try {
    return await read;
  } catch (thrown) {
    if (thrown instanceof RegistryFailure && thrown.outcome === "absent") return [];
    throw thrown;
  }
}

/** All signatures that the node's configuration lets us look for. */
export async function runSignatures(
  job: SignaturesJob,
  events: JobEvents,
  signal: AbortSignal,
): Promise<FoundSignatures> {
  const { lookaside: base, useAttachments } = await readSignaturePlaces(job.registriesDirectory, job.reference);
  return await withSessions(job.access, events, async (sessions, http) => {
    const { path } = job.reference;
    const { policy, limits } = job.access;
    const [first] = sessions;
    const lookaside = { http, base, path, policy, signal };
    const attached = useAttachments ? job.subjects : [];
    const reads = [
      simpleSignings(job, first, lookaside, signal),
      ...attached.map((subject) => attachmentsOf(job, sessions, subject, signal)),
    ];
    const signatures = (await Promise.all(reads)).flat();
    const isSigned = signatures.some(({ kind }) => kind === "sigstore");
    const looks = attached.map(
      async (subject) =>
        first !== undefined && !isSigned && (await hasBundles(first, subject, { limits, policy, signal })),
    );
    return { signatures, hasBundles: (await Promise.all(looks)).includes(true) };
  });
}
