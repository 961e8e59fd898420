import { getMachine } from "./events.ts";

/**
 * Gives back to the kernel what this process holds and does not use: freed blocks of every thread, and pages of the
 * program's own file, which are found again in the page cache when they are needed. For the end of much work: a start,
 * a pull. Never fails: what cannot be given back stays.
 */
export async function releaseMemory(): Promise<void> {
  await getMachine()
    .job("bulk", undefined, (addon, token) => addon.releaseMemory(token))
    .catch(() => undefined); // no thread to be had
}
