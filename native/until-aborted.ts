/**
 * The value, or a rejection with the signal's reason if that comes first; what produces the value is left alone.
 *
 * @throws `signal.reason`
 */
export async function untilAborted<T>(value: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([aborted, value]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
