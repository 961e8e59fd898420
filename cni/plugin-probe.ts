import * as v from "valibot";
import { CriError } from "../cri-api/index.ts";
import { describeIssues, parseJsonObject } from "./json.ts";
import type { Network, NetworkList } from "./network-list.ts";
import { findPlugin, type PluginBinary } from "./plugin-binary.ts";
import { type PluginInvocation, type PluginParts, runPlugin } from "./plugin-run.ts";
import { isSpecVersion, newestSpecVersion, type SpecVersion } from "./spec-version.ts";

/** Asks plugins about themselves; every answer in words is why the network is not ready. */
export interface PluginProbe {
  /** The newest version that the list and all its plugins know. Answers of unchanged binaries are remembered. */
  chooseVersion(list: NetworkList, signal: AbortSignal): Promise<{ version: SpecVersion } | { problem: string }>;
  /** Undefined if every plugin can serve ADD now. */
  checkStatus(network: Network, signal: AbortSignal): Promise<string | undefined>;
}

const versionSchema = v.looseObject({ supportedVersions: v.array(v.string()) });
// Plugins built against libraries from before spec 0.2 want all variables, for VERSION too.
const versionEnvironment = { CNI_CONTAINERID: "dummy", CNI_NETNS: "dummy", CNI_IFNAME: "dummy" };

export function createPluginProbe(parts: PluginParts & { readonly pluginDirs: readonly string[] }): PluginProbe {
  const { pluginDirs } = parts;
  const cniPath = pluginDirs.join(":");
  let known: ReadonlyMap<string, readonly SpecVersion[]> = new Map();

  async function askVersions(
    type: string,
    path: string,
    signal: AbortSignal,
  ): Promise<readonly SpecVersion[] | string> {
    const environment = { ...versionEnvironment, CNI_PATH: cniPath };
    const config = { cniVersion: newestSpecVersion };
    return askForVersions(parts, { command: "VERSION", type, path, environment, config, signal });
  }

  return {
    async chooseVersion(list, signal) {
      const binaries = await findBinaries(list, pluginDirs);
      if (typeof binaries === "string") return { problem: binaries };
      const answers = await Promise.all(
        binaries.map(async ([type, { path, identity }]) => {
          const versions = known.get(identity) ?? (await askVersions(type, path, signal));
          return { type, identity, versions };
        }),
      );
      // Only what this list uses is kept, so that binaries written again and again do not pile up.
      known = new Map(
        answers.flatMap((answer) => (typeof answer.versions === "string" ? [] : [[answer.identity, answer.versions]])),
      );
      return settleVersion(list, answers);
    },
    async checkStatus(network, signal) {
      for (const { type, fields } of network.plugins) {
        const found = await findPlugin(type, pluginDirs);
        if (typeof found === "string") return found;
        const { capabilities: _, ...plain } = fields;
        const config = { ...plain, name: network.name, cniVersion: network.cniVersion };
        const environment = { CNI_PATH: cniPath };
        const outcome = await ask(parts, { command: "STATUS", type, path: found.path, environment, config, signal });
        if (typeof outcome === "string") return outcome;
        if (outcome.kind === "failed") return `cni plugin ${JSON.stringify(type)} is not ready: ${outcome.words}`;
      }
      return undefined;
    },
  };
}

async function findBinaries(
  list: NetworkList,
  pluginDirs: readonly string[],
): Promise<readonly (readonly [type: string, binary: PluginBinary])[] | string> {
  const types = [...new Set(list.plugins.map(({ type }) => type))];
  const found: (readonly [string, PluginBinary])[] = [];
  const problems: string[] = [];
  for (const type of types) {
    const binary = await findPlugin(type, pluginDirs);
    if (typeof binary === "string") problems.push(binary);
    else found.push([type, binary]);
  }
  return problems.length > 0 ? problems.join("; ") : found;
}

function settleVersion(
  list: NetworkList,
  answers: readonly { type: string; versions: readonly SpecVersion[] | string }[],
): { version: SpecVersion } | { problem: string } {
  const failed = answers.find(({ versions }) => typeof versions === "string");
  if (typeof failed?.versions === "string") return { problem: failed.versions };
  const common = list.versions.find((version) => answers.every(({ versions }) => versions.includes(version)));
  if (common !== undefined) return { version: common };
  const lacking = answers.filter(({ versions }) => !list.versions.some((version) => versions.includes(version)));
  const names = (lacking.length > 0 ? lacking : answers).map(({ type }) => JSON.stringify(type)).join(", ");
  return { problem: `cniVersion ${list.versions.join(" or ")} is not supported by cni plugin ${names}` };
}

async function askForVersions(
  parts: PluginParts,
  invocation: PluginInvocation,
): Promise<readonly SpecVersion[] | string> {
  const plugin = `cni plugin ${JSON.stringify(invocation.type)}`;
  const outcome = await ask(parts, invocation);
  if (typeof outcome === "string") return outcome;
  if (outcome.kind === "failed") {
    // The verb came with spec 0.2.
    if (outcome.words.includes("unknown CNI_COMMAND: VERSION")) return ["0.1.0"];
    return `${plugin} failed VERSION: ${outcome.words}`;
  }
  try {
    const parsed = v.safeParse(versionSchema, parseJsonObject(outcome.stdout));
    if (!parsed.success) return `${plugin} gave no valid answer to VERSION: ${describeIssues(parsed.issues, "")}`;
    return parsed.output.supportedVersions.filter(isSpecVersion);
  } catch (thrown) {
    return `${plugin} gave no valid answer to VERSION: ${thrown instanceof Error ? thrown.message : "unreadable"}`;
  }
}

/** A plugin that cannot be started or does not answer in time makes the network not ready; it is no error here. */
async function ask(
  parts: PluginParts,
  invocation: PluginInvocation,
): Promise<Awaited<ReturnType<typeof runPlugin>> | string> {
  try {
    return await runPlugin(parts, invocation);
  } catch (thrown) {
    if (thrown instanceof CriError) return thrown.message;
    throw thrown;
  }
}
