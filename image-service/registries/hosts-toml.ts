import { dirname, isAbsolute, join } from "node:path";

import * as v from "valibot";

import { canonicalHost } from "../reference.ts";
import { checkDocument, FileIssue, parseToml } from "./file-issue.ts";

/** One `[host."…"]` of a `hosts.toml`, or the server itself. */
export interface HostEntry {
  /** `https://host[:port]`, or undefined for the registry that the folder is about. */
  readonly server: URL | undefined;
  readonly canPull: boolean;
  readonly canResolve: boolean;
  readonly skipVerify: boolean;
  /** Absolute paths. */
  readonly authorityFiles: readonly string[];
  /** Absolute paths; the key may be in the certificate's file. */
  readonly clientFiles: readonly { readonly certificate: string; readonly key: string }[];
  readonly headers: Readonly<Record<string, string>>;
  /** What stands before repositories: `/v2` is added to the path unless `override_path` says otherwise. */
  readonly apiPath: string;
  readonly connectTimeoutMs: number | undefined;
}

const text = v.string("must be a string");
const flag = v.optional(v.boolean("must be true or false"), false);
const texts = v.pipe(
  v.union(
    [
      v.pipe(
        text,
        v.transform((one) => [one]),
      ),
      v.array(text, "must be a list"),
    ],
    "must be a string or a list of strings",
  ),
);
/** What a request cannot do without, and what frames it, is not the operator's to set. */
const headerName = v.pipe(
  v.string(),
  v.regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, "is no header's name"),
  v.check(
    (name) =>
      !/^(?:host|connection|content-length|transfer-encoding|upgrade|expect|range|accept|proxy-.*)$/i.test(name),
    "is a header that cannot be set",
  ),
);
const headerValue = v.pipe(
  texts,
  v.transform((values) => values.join(", ")),
  v.regex(/^[\t\x20-\x7e\x80-\xff]*$/, "holds characters that no header may"),
);
const entries = {
  capabilities: v.optional(
    v.array(
      v.pipe(text, v.toLowerCase(), v.picklist(["pull", "resolve", "push"], 'must be of "pull", "resolve", "push"')),
      "must be a list",
    ),
    [],
  ),
  ca: v.optional(texts, []),
  client: v.optional(
    v.union(
      [texts, v.array(v.union([text, v.tuple([text, text])]))],
      "must be a file, a list of files, or of pairs of certificate and key",
    ),
    [],
  ),
  skip_verify: flag,
  header: v.optional(v.record(headerName, headerValue, "must be a table"), {}),
  override_path: flag,
  dial_timeout: v.optional(
    v.pipe(text, v.regex(/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/, 'must be a duration, such as "30s"')),
  ),
};
const entrySchema = v.object(entries, "must be a table");
const fileSchema = v.object({
  ...entries,
  server: v.optional(text, ""),
  host: v.optional(v.record(v.string(), entrySchema, 'must be [host."…"] tables'), {}),
});

const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function durationMs(duration: string | undefined): number | undefined {
  if (duration === undefined) return undefined;
  let sum = 0;
  for (const [, amount, unit = "s"] of duration.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    sum += Number(amount) * (unitMs[unit] ?? 0);
  return sum > 0 ? sum : undefined;
}

function serverOf(address: string): URL | undefined {
  if (address === "") return undefined;
  const written = /^https?:\/\//.test(address) ? address : `https://${address}`;
  if (!URL.canParse(written)) throw new FileIssue(`"${address}": is no address of a host`);
  const url = new URL(written);
  if (url.username !== "" || url.password !== "") throw new FileIssue(`host "${url.host}": must not hold credentials`);
  return url;
}

function apiPathOf(server: URL | undefined, isWhole: boolean): string {
  const path = (server?.pathname ?? "").replace(/\/+$/, "");
  return isWhole || path.endsWith("/v2") ? path : `${path}/v2`;
}

function entryOf(address: string, entry: v.InferOutput<typeof entrySchema>, directory: string): HostEntry {
  const absolute = (path: string): string => (isAbsolute(path) ? path : join(directory, path));
  const server = serverOf(address);
  const { capabilities } = entry;
  const can = (capability: "pull" | "resolve"): boolean =>
    capabilities.length === 0 || capabilities.includes(capability);
  return {
    server,
    canPull: can("pull"),
    canResolve: can("resolve"),
    skipVerify: entry.skip_verify,
    authorityFiles: entry.ca.map(absolute),
    clientFiles: entry.client.map((files) => {
      const [certificate, key] = typeof files === "string" ? [files, files] : files;
      return { certificate: absolute(certificate), key: absolute(key) };
    }),
    headers: Object.fromEntries(Object.entries(entry.header).map(([name, value]) => [name.toLowerCase(), value])),
    apiPath: apiPathOf(server, entry.override_path),
    connectTimeoutMs: durationMs(entry.dial_timeout),
  };
}

/**
 * Reads containerd's `hosts.toml`: its hosts in the order in which they are written, then the server.
 *
 * @param path absolute; files named in it are relative to its folder.
 * @throws {FileIssue}
 * @see https://github.com/containerd/containerd/blob/v2.1.0/docs/hosts.md
 */
export function parseHostsToml(text: string, path: string): readonly HostEntry[] {
  const file = checkDocument(fileSchema, parseToml(text));
  const directory = dirname(path);
  const hosts = Object.entries(file.host).map(([address, entry]) => entryOf(address, entry, directory));
  return [...hosts, entryOf(file.server, file, directory)];
}

/** The host that a folder is about, which may be called `host_port_`; undefined for one that is about none. */
export function hostOfDirectory(name: string): string | undefined {
  return canonicalHost(name.replace(/_(\d+)_$/, ":$1"));
}

/** Which of the folders may speak for a host, in the order in which they are looked for. */
export function hostDirectories(names: readonly string[], host: string): readonly string[] {
  const about = names.filter((name) => hostOfDirectory(name) === host);
  return [...about.sort((left, right) => Number(right.endsWith("_")) - Number(left.endsWith("_"))), "_default"];
}
