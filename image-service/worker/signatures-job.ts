import { type Attempt, failedAttempts, RegistryFailure } from "../registry/failure.ts";
import type { RegistrySession } from "../registry/session.ts";
import { readAttachments } from "../trust/attachments.ts";
import { readLookaside } from "../trust/lookaside.ts";
import { readSignaturePlaces } from "../trust/registries-d.ts";
import type { ImageSignature } from "../trust/signature.ts";
import type { Digest } from "../digest.ts";
import type { SignaturesJob } from "./protocol.ts";
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

/** All signatures that the node's configuration lets us look for. */
export async function runSignatures(
  job: SignaturesJob,
  events: JobEvents,
  signal: AbortSignal,
): Promise<readonly ImageSignature[]> {
  const { lookaside: base, useAttachments } = await readSignaturePlaces(job.registriesDirectory, job.reference);
  return await withSessions(job.access, events, async (sessions, http) => {
    const { path } = job.reference;
    const { policy } = job.access;
    const reads = job.subjects.flatMap((subject) => [
      ...(base === undefined ? [] : [readLookaside({ http, base, path, policy, signal }, subject)]),
      ...(useAttachments ? [attachmentsOf(job, sessions, subject, signal)] : []),
    ]);
    return (await Promise.all(reads)).flat();
  });
}
