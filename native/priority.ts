import { access } from "node:fs/promises";
import { getMachine } from "./events.ts";

/** In a quarrel over a processor this counts as 87 others; the addon asks for the shortest slice with it. */
const nice = -20;

/**
 * Lets this process, as far as it has been started, have a processor before the programs and threads that this thread
 * starts from here on: these do not inherit it. All of it, since a thread waits for the locks of V8's and libuv's own.
 * A priority that somebody has chosen for the process, by its unit say, stays as it is.
 *
 * @returns Whether it was allowed: that takes CAP_SYS_NICE.
 */
export async function raisePriority(): Promise<boolean> {
  await access("/"); // libuv starts its threads, all of them, at the first need
  return getMachine().addon.raisePriority(nice) === 0;
}
