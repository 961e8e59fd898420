import { setTimeout as sleep } from "node:timers/promises";
import { Code, toCriError } from "../cri-api/index.ts";
import { untilAborted } from "../native/index.ts";
import type { Host } from "./host.ts";
import { podInterface, usesHostNetwork } from "./network.ts";

const firstPauseMs = 1_000;
const longestPauseMs = 60_000;

type Parts = Pick<Host, "network" | "sandboxes" | "log"> & {
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<unknown>;
};

/**
 * Tells the network, as soon as there is one, which attachments are still owed, so that it gives the others' addresses
 * back. Ends when that is done, when it fails in another way than that there is no network, or with the signal.
 */
export async function collectNetworkGarbage(parts: Parts, signal: AbortSignal): Promise<void> {
  const wait = parts.wait ?? ((ms) => untilAborted(sleep(ms, undefined, { ref: false }), signal));
  try {
    for (let pauseMs = firstPauseMs; !(await collect(parts, signal)); pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      await wait(pauseMs, signal);
    }
  } catch (thrown) {
    if (!signal.aborted) parts.log.warn({ err: toCriError(thrown).message }, "stale network attachments not cleared");
  }
}

/** False where the network is not there yet. */
async function collect({ network, sandboxes }: Parts, signal: AbortSignal): Promise<boolean> {
  const owed = sandboxes.all().filter(({ state, config }) => state !== "stopped" && !usesHostNetwork(config));
  try {
    const attachments = owed.map(({ id }) => ({ containerId: id, ifName: podInterface }));
    await network.collectGarbage(attachments, signal);
    return true;
  } catch (thrown) {
    if (toCriError(thrown).code === Code.Unavailable && !signal.aborted) return false;
    throw thrown;
  }
}
