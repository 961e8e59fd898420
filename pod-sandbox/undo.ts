/** Longest time one step of taking something down may take; the next stop or remove tries again. */
export const teardownDeadlineMs = 60_000;

/** Waits for all, even when one fails, so that undoing starts only when nothing is at work any more. */
export async function settleTogether<const T extends readonly Promise<unknown>[]>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}
