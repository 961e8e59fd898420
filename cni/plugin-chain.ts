import { Code, CriError, toCriError } from "../cri-api/index.ts";
import type { CniArgs } from "./attachment.ts";
import type { AttachmentName } from "./attachment-memory.ts";
import { type JsonObject, parseJsonObject } from "./json.ts";
import type { Network, PluginConfig } from "./network-list.ts";
import { findPlugin } from "./plugin-binary.ts";
import { toPluginError } from "./plugin-error.ts";
import { type CniCommand, type PluginOutcome, type PluginParts, runPlugin } from "./plugin-run.ts";
import { type CniResult, readResult } from "./result.ts";
import { isAtLeast } from "./spec-version.ts";
import { toOneLine } from "./text.ts";

/** One attachment as the plugins are told of it. */
export interface Interface {
  readonly containerId: string;
  readonly netnsPath: string;
  readonly ifName: string;
  readonly cniArgs: CniArgs;
  readonly capabilityArgs: JsonObject;
}

export interface ChainParts extends PluginParts {
  readonly pluginDirs: readonly string[];
}

const containerUnknown = 3;

/**
 * Runs ADD through the list, each plugin seeing the result of the one before.
 *
 * @throws {CriError} what the failing plugin said; undoing is the caller's.
 * @see https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md#section-3-execution-of-network-configurations
 */
export async function addChain(
  parts: ChainParts,
  network: Network,
  to: Interface,
  signal: AbortSignal,
): Promise<CniResult> {
  let result: CniResult | undefined;
  for (const plugin of network.plugins) {
    const config = attachmentConfig(network, plugin, to, result?.raw);
    const outcome = await runOne(parts, {
      command: "ADD",
      plugin,
      config,
      environment: environmentOf(parts, to),
      signal,
    });
    const what = describe(plugin, "ADD", network, to);
    if (outcome.kind === "failed") throw toPluginError(what, withoutPath(outcome, to));
    result = readAddResult(outcome.stdout, network, what);
  }
  if (result === undefined)
    throw new CriError(Code.FailedPrecondition, `network ${JSON.stringify(network.name)} has no plugins`);
  return result;
}

/**
 * Runs DEL through the list backwards. It stops at the first failure, as libcni does, unless `isUndo`: after a failed
 * ADD no plugin may rely on another one, and as much as possible must go.
 *
 * @throws {CriError} the first failure.
 */
export async function deleteChain(
  parts: ChainParts,
  network: Network,
  from: Interface & { readonly result: JsonObject | undefined },
  options: { readonly isUndo: boolean; readonly signal: AbortSignal },
): Promise<void> {
  const prevResult = isAtLeast(network.cniVersion, "0.4.0") ? from.result : undefined;
  let firstFailure: CriError | undefined;
  for (const plugin of network.plugins.toReversed()) {
    try {
      const config = attachmentConfig(network, plugin, from, prevResult);
      const environment = environmentOf(parts, from);
      const outcome = await runOne(parts, { command: "DEL", plugin, config, environment, signal: options.signal });
      // The spec's word for "nothing of it is left to clean up".
      if (outcome.kind === "succeeded" || outcome.cniCode === containerUnknown) continue;
      throw toPluginError(describe(plugin, "DEL", network, from), withoutPath(outcome, from));
    } catch (thrown) {
      if (!options.isUndo || options.signal.aborted) throw thrown;
      firstFailure ??= toCriError(thrown);
    }
  }
  if (firstFailure !== undefined) throw firstFailure;
}

/** @throws {CriError} what the first plugin that is not content said. */
export async function checkChain(
  parts: ChainParts,
  network: Network,
  of: Interface & { readonly result: JsonObject },
  signal: AbortSignal,
): Promise<void> {
  for (const plugin of network.plugins) {
    const config = attachmentConfig(network, plugin, of, of.result);
    const outcome = await runOne(parts, {
      command: "CHECK",
      plugin,
      config,
      environment: environmentOf(parts, of),
      signal,
    });
    if (outcome.kind === "failed")
      throw toPluginError(describe(plugin, "CHECK", network, of), withoutPath(outcome, of));
  }
}

/**
 * Tells every plugin which attachments are alive; a failing one does not keep the others from cleaning up.
 *
 * @returns the failures.
 */
export async function collectChain(
  parts: ChainParts,
  network: Network,
  valid: readonly AttachmentName[],
  signal: AbortSignal,
): Promise<readonly CriError[]> {
  const attachments = valid.map(({ containerId, ifName }) => ({ containerID: containerId, ifname: ifName }));
  const failures: CriError[] = [];
  for (const plugin of network.plugins) {
    // The second key is a slip of the spec's first text that libcni keeps sending.
    const keys = { "cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments };
    const config = { ...baseConfig(network, plugin), ...keys };
    const environment = { CNI_PATH: parts.pluginDirs.join(":") };
    const outcome = await runOne(parts, { command: "GC", plugin, config, environment, signal });
    if (outcome.kind === "failed") failures.push(toPluginError(describe(plugin, "GC", network), outcome));
  }
  return failures;
}

async function runOne(
  parts: ChainParts,
  {
    plugin,
    ...rest
  }: {
    readonly command: CniCommand;
    readonly plugin: PluginConfig;
    readonly config: JsonObject;
    readonly environment: Readonly<Record<string, string>>;
    readonly signal: AbortSignal;
  },
): Promise<PluginOutcome> {
  const binary = await findPlugin(plugin.type, parts.pluginDirs);
  if (typeof binary === "string") throw new CriError(Code.FailedPrecondition, binary);
  return runPlugin(parts, { ...rest, type: plugin.type, path: binary.path });
}

function readAddResult(stdout: Buffer, network: Network, what: string): CniResult {
  try {
    return readResult(parseJsonObject(stdout), network.cniVersion);
  } catch (thrown) {
    const reason = thrown instanceof Error ? toOneLine(thrown.message, 300) : "unreadable";
    throw new CriError(Code.Internal, `${what}: gave no valid result: ${reason}`, { cause: thrown });
  }
}

/** `capabilities` is for us, not for the plugin: the spec has it taken out. */
function baseConfig(network: Network, plugin: PluginConfig): JsonObject {
  const { capabilities: _, ...fields } = plugin.fields;
  return { ...fields, name: network.name, cniVersion: network.cniVersion };
}

function attachmentConfig(
  network: Network,
  plugin: PluginConfig,
  of: Interface,
  prevResult: JsonObject | undefined,
): JsonObject {
  const able = Object.entries(of.capabilityArgs).filter(([name]) => plugin.capabilities.includes(name));
  const own = baseConfig(network, plugin);
  return {
    ...own,
    ...(able.length > 0 ? { runtimeConfig: Object.fromEntries(able) } : {}),
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

function environmentOf(parts: ChainParts, of: Interface): Readonly<Record<string, string>> {
  return {
    CNI_CONTAINERID: of.containerId,
    CNI_NETNS: of.netnsPath,
    CNI_IFNAME: of.ifName,
    CNI_ARGS: of.cniArgs.map(([key, value]) => `${key}=${value}`).join(";"),
    CNI_PATH: parts.pluginDirs.join(":"),
  };
}

function describe(plugin: PluginConfig, command: CniCommand, network: Network, of?: Interface): string {
  const target = of === undefined ? "" : ` for pod sandbox ${JSON.stringify(of.containerId)}`;
  return `cni plugin ${JSON.stringify(plugin.type)} failed ${command} of network ${JSON.stringify(network.name)}${target}`;
}

/** Plugins like to name the namespace's file, which lies in our state directory. */
function withoutPath<F extends { readonly words: string }>(failure: F, { netnsPath }: Interface): F {
  return netnsPath === "" ? failure : { ...failure, words: failure.words.replaceAll(netnsPath, "<netns>") };
}
