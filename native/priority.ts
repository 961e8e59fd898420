import { getMachine } from "./events.ts";

/** In a quarrel over a processor this counts as nine others; the addon asks for the shortest slice with it. */
const nice = -10;

/**
 * Lets this thread have a processor before the programs and threads that it starts from here on: these do not inherit
 * it. A priority that somebody has chosen for the process, by its unit say, stays as it is.
 *
 * @returns Whether it was allowed: that takes CAP_SYS_NICE.
 */
export function raisePriority(): boolean {
  return getMachine().addon.raisePriority(nice) === 0;
}
