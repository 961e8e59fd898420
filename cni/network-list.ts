import * as v from "valibot";
import { describeIssues, type JsonObject, parseJsonObject } from "./json.ts";
import { isSpecVersion, type SpecVersion, specVersions } from "./spec-version.ts";
import { hasControlCharacter } from "./text.ts";

/** One entry of a network's plugin list; `fields` is the entry as written, passed on to the plugin. */
export interface PluginConfig {
  readonly type: string;
  /** Names that the entry's `capabilities` sets to true. */
  readonly capabilities: readonly string[];
  readonly fields: JsonObject;
}

/** A network as its file describes it. */
export interface NetworkList {
  readonly name: string;
  /** Versions the file allows and Berth speaks, newest first; never empty. */
  readonly versions: readonly SpecVersion[];
  readonly disableCheck: boolean;
  readonly disableGC: boolean;
  readonly loadOnlyInlinedPlugins: boolean;
  readonly plugins: readonly PluginConfig[];
  readonly fields: JsonObject;
}

/** A network with the one version that is spoken to its plugins. */
export interface Network extends Omit<NetworkList, "versions" | "loadOnlyInlinedPlugins"> {
  readonly cniVersion: SpecVersion;
}

// The rule of libcni's ValidateNetworkName; 128 leaves room for "-<container id>-<ifname>" in a cache file's name.
const networkName = v.pipe(
  v.string("must be a string"),
  v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/, "must start with a letter or digit and hold only letters, digits, _ . -"),
  v.maxLength(128, "must be at most 128 characters"),
);

// CVE-2021-20206: a type like "../../bin/sh" would run any program on the node.
const pluginType = v.pipe(
  v.string("must be a string"),
  v.minLength(1, "must not be empty"),
  v.maxLength(255, "must be at most 255 characters"),
  v.check(isPlainFileName, "must be a plain file name"),
);

const pluginSchema = v.looseObject({
  type: pluginType,
  capabilities: v.nullish(v.record(v.string(), v.boolean("must be true or false"))),
});

// libcni accepts the strings too: the first text of spec 1.0 said "string".
const flag = v.optional(
  v.union(
    [
      v.boolean(),
      v.pipe(
        v.string(),
        v.toLowerCase(),
        v.picklist(["true", "false"]),
        v.transform((text) => text === "true"),
      ),
    ],
    'must be true or false, or the string "true" or "false"',
  ),
  false,
);

const listSchema = v.looseObject({
  name: networkName,
  cniVersion: v.optional(v.string("must be a string"), ""),
  cniVersions: v.optional(v.array(v.string("must be a string"), "must be a list of strings")),
  disableCheck: flag,
  disableGC: flag,
  loadOnlyInlinedPlugins: flag,
  plugins: v.optional(
    v.pipe(v.array(v.unknown(), "must be a list"), v.minLength(1, "must not be empty"), v.maxLength(64, "too many")),
  ),
});

/**
 * Reads a `.conflist`. Its `plugins` may be absent: they then come from the folder named after the network.
 *
 * @throws {Error} with a text for the operator if the bytes are no valid network list.
 */
export function parseNetworkList(bytes: Uint8Array): NetworkList {
  const fields = parseJsonObject(bytes);
  const list = parseBy(listSchema, fields, "");
  if (list.plugins === undefined && list.loadOnlyInlinedPlugins) {
    throw new Error("plugins: must be present when loadOnlyInlinedPlugins is true");
  }
  return {
    name: list.name,
    versions: allowedVersions(list.cniVersion, list.cniVersions),
    disableCheck: list.disableCheck,
    disableGC: list.disableGC,
    loadOnlyInlinedPlugins: list.loadOnlyInlinedPlugins,
    plugins: (list.plugins ?? []).map((plugin, index) => toPluginConfig(plugin, `plugins.${String(index)}`)),
    fields,
  };
}

/** Reads a single-plugin `.conf` or `.json`, the form from before lists, as a list of that one plugin. */
export function parseLegacyConfig(bytes: Uint8Array): NetworkList {
  const fields = parseJsonObject(bytes);
  if (Array.isArray(fields["plugins"])) {
    throw new Error("plugins: a list of plugins belongs in a file named .conflist");
  }
  const { name, cniVersion } = fields;
  const wrapped = { name, ...(cniVersion === undefined ? {} : { cniVersion }), plugins: [fields] };
  return parseNetworkList(Buffer.from(JSON.stringify(wrapped)));
}

/** Reads one file of the folder named after a network. */
export function parsePluginConfig(bytes: Uint8Array): PluginConfig {
  return toPluginConfig(parseJsonObject(bytes), "");
}

/** Settles on one version; the list must allow it. */
export function toNetwork(list: NetworkList, cniVersion: SpecVersion): Network {
  const { name, disableCheck, disableGC, plugins, fields } = list;
  return { name, cniVersion, disableCheck, disableGC, plugins, fields };
}

/**
 * The list as the result cache keeps it: complete in itself. libcni keeps the file's bytes, which lack the plugins
 * of the network's folder, so that their DEL would never be run by who reads the cache.
 */
export function serializeNetwork(network: Network): string {
  const { cniVersions: _, ...fields } = network.fields;
  return JSON.stringify({
    ...fields,
    cniVersion: network.cniVersion,
    plugins: network.plugins.map((plugin) => plugin.fields),
    loadOnlyInlinedPlugins: true,
  });
}

function toPluginConfig(value: unknown, path: string): PluginConfig {
  const plugin = parseBy(pluginSchema, value, path);
  const capabilities = Object.entries(plugin.capabilities ?? {}).filter(([, isSupported]) => isSupported);
  return { type: plugin.type, capabilities: capabilities.map(([name]) => name), fields: value as JsonObject };
}

function allowedVersions(single: string, several: readonly string[] | undefined): readonly SpecVersion[] {
  const named = [...(several ?? []), ...(single === "" ? [] : [single])];
  if (named.length === 0) return ["0.1.0"];
  const known = specVersions.filter((version) => named.includes(version)).toReversed();
  if (known.length > 0) return known;
  const unknown = named.filter((version) => !isSpecVersion(version)).map((version) => JSON.stringify(version));
  throw new Error(`cniVersion: ${unknown.join(", ")} is none of ${specVersions.join(", ")}`);
}

function parseBy<Schema extends v.GenericSchema>(schema: Schema, value: unknown, path: string): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value);
  if (!parsed.success) throw new Error(describeIssues(parsed.issues, path));
  return parsed.output;
}

function isPlainFileName(name: string): boolean {
  return !/[/\\:]/.test(name) && !hasControlCharacter(name) && name !== "." && name !== "..";
}
