import { statfs } from "node:fs/promises";
import { type Call, Code, CriError, type Logger, toCriError } from "../cri-api/index.ts";
import { type Attachment, capabilityArgsOf, cniArgsOf } from "./attachment.ts";
import type { AttachmentMemory, AttachmentName } from "./attachment-memory.ts";
import type { Network } from "./network-list.ts";
import { parseNetworkList, serializeNetwork, toNetwork } from "./network-list.ts";
import type { NetworkSource } from "./network-source.ts";
import { addChain, type ChainParts, checkChain, deleteChain, type Interface } from "./plugin-chain.ts";
import type { CacheEntry, ResultCache } from "./result-cache.ts";
import { type CniResult, readResult } from "./result.ts";
import { isAtLeast, isSpecVersion } from "./spec-version.ts";
import type { Vanguard } from "./vanguard.ts";

export interface AttachmentParts {
  readonly chain: ChainParts;
  readonly cache: ResultCache;
  readonly source: NetworkSource;
  readonly memory: AttachmentMemory;
  readonly vanguard: Vanguard;
  readonly log: Logger;
  /** Deadline of the DEL that follows a failed ADD. */
  readonly undoTimeoutMs: number;
}

const nsfsMagic = 0x6e_73_66_73;

/** ADD with its undo; the caller holds the container's lock. */
export async function attach(parts: AttachmentParts, call: Call, attachment: Attachment): Promise<CniResult> {
  const network = await requireNetwork(parts.source, call.signal);
  await clearLeftovers(parts, attachment, call.signal);
  const iface = toInterface(attachment);
  warnOfUnmet(call.log, network, iface);
  const entry: CacheEntry & Interface = { ...iface, networkName: network.name, config: serializeNetwork(network) };
  parts.memory.begin(attachment);
  try {
    await parts.cache.write(entry); // from here on a DEL is owed, whoever runs it
  } catch (thrown) {
    parts.memory.end(attachment);
    throw thrown;
  }
  try {
    const kind = JSON.stringify([entry.config, Object.keys(iface.capabilityArgs)]);
    const add = (): Promise<CniResult> => addChain(parts.chain, network, iface, call.signal);
    const result = await parts.vanguard.run(kind, call.signal, add);
    await parts.cache.write({ ...entry, result: result.raw });
    return result;
  } catch (thrown) {
    await undo(parts, network, entry, thrown);
    throw thrown;
  }
}

/** DEL as the cache remembers the attachment. */
export async function detach(parts: AttachmentParts, attachment: Attachment, signal: AbortSignal): Promise<void> {
  if (parts.memory.hasEnded(attachment)) return;
  const { containerId, ifName } = attachment;
  const entries = await parts.cache.find(containerId, ifName);
  const netnsPath = await existingNetns(attachment.netnsPath);
  for (const entry of entries) await deleteEntry(parts, { ...attachment, netnsPath }, entry, signal);
  const network = entries.length === 0 ? parts.source.chosen() : undefined;
  if (network !== undefined) {
    // The cache was lost, or the attachment never was: the present network is the best guess.
    const iface = toInterface({ ...attachment, netnsPath });
    await deleteChain(parts.chain, network, { ...iface, result: undefined }, { isUndo: false, signal });
  }
  parts.memory.end(attachment);
}

/** DEL of an attachment that only the cache knows. */
export async function detachCached(parts: AttachmentParts, entry: CacheEntry, signal: AbortSignal): Promise<void> {
  const pod = { name: "", namespace: "", uid: "" };
  const { containerId, ifName } = entry;
  const netnsPath = await existingNetns(entry.netnsPath);
  await deleteEntry(parts, { containerId, ifName, netnsPath, pod, portMappings: [] }, entry, signal);
  parts.memory.end(entry);
}

/** CHECK; does nothing where the network switches it off. */
export async function checkAttachment(parts: AttachmentParts, call: Call, attachment: Attachment): Promise<void> {
  const entries = await parts.cache.find(attachment.containerId, attachment.ifName);
  const entry = entries.find(({ result }) => result !== undefined);
  if (entry?.result === undefined) {
    throw new CriError(Code.FailedPrecondition, `pod sandbox ${JSON.stringify(attachment.containerId)} has no network`);
  }
  const network = networkOf(parts.source, entry);
  if (network.disableCheck) return;
  if (!isAtLeast(network.cniVersion, "0.4.0")) {
    const of = `network ${JSON.stringify(network.name)}`;
    throw new CriError(Code.FailedPrecondition, `${of}: CHECK needs cniVersion 0.4.0, it has ${network.cniVersion}`);
  }
  const { raw } = readResult(entry.result, network.cniVersion);
  const iface = { ...interfaceOf(entry, attachment), netnsPath: attachment.netnsPath, result: raw };
  await checkChain(parts.chain, network, iface, call.signal);
}

export async function findResult(cache: ResultCache, attachment: AttachmentName): Promise<CniResult | undefined> {
  const entries = await cache.find(attachment.containerId, attachment.ifName);
  const result = entries.find((entry) => entry.result !== undefined)?.result;
  if (result === undefined) return undefined;
  const version = result["cniVersion"];
  return readResult(result, typeof version === "string" && isSpecVersion(version) ? version : "1.0.0");
}

export async function requireNetwork(source: NetworkSource, signal: AbortSignal): Promise<Network> {
  if (source.current() === undefined) await source.refresh(signal); // what is remembered may be ten seconds old
  const network = source.current();
  if (network !== undefined) return network;
  const status = source.status();
  throw new CriError(Code.Unavailable, status.ready ? "cni plugin not initialized" : status.message);
}

/** Host ports that no plugin maps look like a network fault from outside. */
function warnOfUnmet(log: Logger, network: Network, { containerId, capabilityArgs }: Interface): void {
  const able = new Set(network.plugins.flatMap(({ capabilities }) => capabilities));
  const unmet = ["portMappings", "bandwidth"].filter((name) => name in capabilityArgs && !able.has(name));
  if (unmet.length > 0) {
    log.warn({ podSandboxId: containerId, network: network.name, unmet }, "no cni plugin grants what the pod asks for");
  }
}

/** A runtime must not ADD twice; an entry without result is an ADD whose end nobody saw. */
async function clearLeftovers(parts: AttachmentParts, attachment: Attachment, signal: AbortSignal): Promise<void> {
  for (const entry of await parts.cache.find(attachment.containerId, attachment.ifName)) {
    if (entry.result !== undefined) {
      const text = `pod sandbox ${JSON.stringify(entry.containerId)} already has ${JSON.stringify(entry.ifName)}`;
      throw new CriError(Code.AlreadyExists, `${text} in network ${JSON.stringify(entry.networkName)}`);
    }
    await deleteEntry(parts, attachment, entry, signal);
  }
}

async function deleteEntry(
  parts: AttachmentParts,
  attachment: Attachment,
  entry: CacheEntry,
  signal: AbortSignal,
): Promise<void> {
  const network = networkOf(parts.source, entry);
  const iface = { ...interfaceOf(entry, attachment), netnsPath: attachment.netnsPath };
  const result = entry.result && tryConvert(parts.log, entry, network);
  await deleteChain(parts.chain, network, { ...iface, result }, { isUndo: false, signal });
  await parts.cache.remove(entry);
}

async function undo(
  parts: AttachmentParts,
  network: Network,
  entry: CacheEntry & Interface,
  cause: unknown,
): Promise<void> {
  const signal = AbortSignal.timeout(parts.undoTimeoutMs);
  try {
    await deleteChain(parts.chain, network, { ...entry, result: undefined }, { isUndo: true, signal });
    await parts.cache.remove(entry);
    parts.memory.end(entry);
  } catch (thrown) {
    const { message } = toCriError(thrown);
    parts.log.warn({ podSandboxId: entry.containerId, reason: message }, "network of a failed pod not yet cleaned up");
    throw new SuppressedError(thrown, cause, "network of a failed pod not yet cleaned up");
  }
}

function toInterface(attachment: Attachment): Interface {
  const { containerId, ifName, netnsPath } = attachment;
  return {
    containerId,
    ifName,
    netnsPath,
    cniArgs: cniArgsOf(attachment),
    capabilityArgs: capabilityArgsOf(attachment),
  };
}

function networkOf(source: NetworkSource, entry: CacheEntry): Network {
  const network = tryParseConfig(entry.config) ?? source.findByName(entry.networkName);
  if (network !== undefined) return network;
  const of = `network ${JSON.stringify(entry.networkName)} of pod sandbox ${JSON.stringify(entry.containerId)}`;
  throw new CriError(Code.FailedPrecondition, `${of} is neither cached nor configured any more`);
}

function tryParseConfig(config: string | undefined): Network | undefined {
  if (config === undefined) return undefined;
  try {
    const list = parseNetworkList(Buffer.from(config));
    const [version] = list.versions;
    return version === undefined || list.plugins.length === 0 ? undefined : toNetwork(list, version);
  } catch {
    return undefined;
  }
}

function tryConvert(log: Logger, entry: CacheEntry, network: Network): CniResult["raw"] | undefined {
  try {
    return entry.result && readResult(entry.result, network.cniVersion).raw;
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : "unreadable";
    log.warn({ podSandboxId: entry.containerId, reason }, "cached cni result unusable, deleting without it");
    return undefined;
  }
}

/** The cached arguments, since a DEL is to be given what its ADD was given. */
function interfaceOf(entry: CacheEntry, attachment: Attachment): Omit<Interface, "netnsPath"> {
  return {
    containerId: entry.containerId,
    ifName: entry.ifName,
    cniArgs: entry.cniArgs ?? cniArgsOf(attachment),
    capabilityArgs: entry.capabilityArgs ?? (entry.config === undefined ? capabilityArgsOf(attachment) : {}),
  };
}

/** A file that is no namespace any more (after a reboot, or unmounted) makes plugins fail where `""` does not. */
async function existingNetns(path: string): Promise<string> {
  if (path === "") return "";
  const type = await statfs(path)
    .then((found) => found.type)
    .catch(() => undefined);
  return type === nsfsMagic ? path : "";
}
