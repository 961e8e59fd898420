import type { Logger } from "../cri-api/index.ts";

/** Longest time one step of taking something down may take; the next stop or remove tries again. */
export const teardownDeadlineMs = 60_000;

/** Waits for all, even when one fails, so that undoing starts only when nothing is at work any more. */
export async function settleTogether<const T extends readonly Promise<unknown>[]>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

/**
 * What a part could not undo of a call of its own is not yet lost where our own undo does it again: then only the cause
 * counts.
 */
export async function undoneByUs<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    throw thrown instanceof SuppressedError ? thrown.suppressed : thrown;
  }
}

/** The caller hears only why the create failed; that its undo failed too is for the operator. */
export function tellFailedUndo(log: Logger, id: string, thrown: SuppressedError): void {
  const errs: string[] = [];
  for (let at: unknown = thrown; at instanceof SuppressedError; at = at.suppressed) errs.push(String(at.error));
  log.warn({ id, errs }, "a failed create is not undone yet; its retry or its pod's end goes on with it");
}

/** Brings a record up to date with an undo. A failure must not hide why there was an undo; the next start goes on with it. */
export async function noteUndo(log: Logger, id: string, write: () => Promise<unknown>): Promise<void> {
  try {
    await write();
  } catch (thrown) {
    log.error({ id, err: String(thrown) }, "record not brought up to date with an undo");
  }
}
