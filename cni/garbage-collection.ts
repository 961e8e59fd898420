import { CriError, toCriError } from "../cri-api/index.ts";
import type { AttachmentGate } from "./attachment-gate.ts";
import { type AttachmentName, keyOf } from "./attachment-memory.ts";
import { type AttachmentParts, detachCached, requireNetwork } from "./attachments.ts";
import { removeEmptyLeases } from "./host-local-leases.ts";
import type { Network } from "./network-list.ts";
import { collectChain } from "./plugin-chain.ts";
import type { CacheEntry } from "./result-cache.ts";
import { isAtLeast } from "./spec-version.ts";

export interface CollectParts extends AttachmentParts {
  readonly gate: AttachmentGate;
  /** Runs work while no other verb of that container runs. */
  readonly alone: <T>(containerId: string, signal: AbortSignal, work: () => Promise<T>) => Promise<T>;
}

/**
 * In libcni's order: first DEL of what the cache holds and nobody names, then GC to every plugin of a 1.1.0 list. And
 * what host-local has lost the owners of, which neither finds.
 *
 * @see https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md#gc-clean-up-any-stale-resources
 */
export async function collectGarbage(
  parts: CollectParts,
  named: readonly AttachmentName[],
  signal: AbortSignal,
): Promise<void> {
  const network = await requireNetwork(parts.source, signal);
  if (network.disableGC) return;
  const valid = (): ReadonlyMap<string, AttachmentName> =>
    new Map([...named, ...parts.memory.alive()].map((attachment) => [keyOf(attachment), attachment]));

  const failures: CriError[] = [];
  for (const entry of await parts.cache.list()) {
    if (entry.networkName !== network.name || valid().has(keyOf(entry))) continue;
    const failure = await deleteStale(parts, entry, signal);
    if (failure !== undefined) failures.push(failure);
  }
  const emptied = await parts.gate.exclusive(signal, () => removeEmptyLeases(network));
  if (emptied.length > 0)
    parts.log.warn({ network: network.name, emptied }, "leases that a power cut had emptied removed");
  failures.push(...(await sendGc(parts, network, () => [...valid().values()], signal)));
  throwJoined(failures);
}

async function deleteStale(parts: CollectParts, entry: CacheEntry, signal: AbortSignal): Promise<CriError | undefined> {
  try {
    await parts.alone(entry.containerId, signal, () => detachCached(parts, entry, signal));
    parts.log.info({ podSandboxId: entry.containerId, network: entry.networkName }, "stale network attachment deleted");
    return undefined;
  } catch (thrown) {
    return toCriError(thrown);
  }
}

/** No verb may run beside GC. What is alive is asked inside, when none can begin any more. */
async function sendGc(
  { gate, chain }: CollectParts,
  network: Network,
  valid: () => readonly AttachmentName[],
  signal: AbortSignal,
): Promise<readonly CriError[]> {
  if (!isAtLeast(network.cniVersion, "1.1.0")) return [];
  try {
    return await gate.exclusive(signal, () => collectChain(chain, network, valid(), signal));
  } catch (thrown) {
    return [toCriError(thrown)];
  }
}

function throwJoined(failures: readonly CriError[]): void {
  const [first] = failures;
  if (first === undefined) return;
  if (failures.length === 1) throw first;
  const messages = failures.slice(0, 5).map(({ message }) => message);
  if (failures.length > messages.length) messages.push(`and ${String(failures.length - messages.length)} more`);
  throw new CriError(first.code, messages.join("; "), { cause: failures });
}
