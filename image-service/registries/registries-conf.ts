import * as v from "valibot";

import { isDigest } from "../digest.ts";
import { canonicalPlace, isRegistryHost, isRepositoryPath, isShortName, splitTag } from "../reference.ts";
import { isHelperName } from "./credential-helper.ts";
import { checkDocument, FileIssue, parseToml } from "./file-issue.ts";
import { parseFile, type ReadFile } from "./reloading.ts";

export interface Mirror {
  readonly location: string;
  readonly isInsecure: boolean;
  readonly pullFrom: "all" | "digest-only" | "tag-only";
}

/** One `[[registry]]`: how the images are reached whose names begin with its prefix. */
export interface RegistryRule {
  /** `host[:port][/path]`, or `*.domain`; without tag and digest. */
  readonly prefix: string;
  /** `:tag` or `@digest` where the rule is for that one image. */
  readonly suffix: string;
  /** What stands in the prefix's stead; undefined behind a wildcard, where the name may stay as it is. */
  readonly location: string | undefined;
  readonly isInsecure: boolean;
  readonly isBlocked: boolean;
  readonly mirrors: readonly Mirror[];
}

const shortNameModes = ["enforcing", "permissive", "disabled"] as const;

/** `registries.conf`, its drop-ins and the recorded aliases, as one. */
export interface RegistriesConf {
  readonly rules: readonly RegistryRule[];
  /** Undefined where no file says any: short names are Docker Hub's then. */
  readonly searchRegistries: readonly string[] | undefined;
  readonly shortNameMode: (typeof shortNameModes)[number];
  /** Full names of repositories by short name. */
  readonly aliases: ReadonlyMap<string, string>;
  /** In the order in which they are asked; `containers-auth.json` stands for the files. */
  readonly credentialHelpers: readonly string[];
}

/** The name among the credential helpers that means the files. */
export const authFilesHelper = "containers-auth.json";

function isLocation(value: string): boolean {
  const [host = "", ...path] = value.split("/");
  return isRegistryHost(host) && (path.length === 0 || isRepositoryPath(path.join("/")));
}

/** Takes `:tag` or `@digest` off a name; a colon without a path before it begins a port. */
function splitSuffix(value: string): { name: string; suffix: string } {
  const at = value.indexOf("@");
  if (at !== -1) return { name: value.slice(0, at), suffix: value.slice(at) };
  const { name } = value.includes("/") ? splitTag(value) : { name: value };
  return { name, suffix: value.slice(name.length) };
}

function isPrefix(value: string): boolean {
  if (value.startsWith("*.")) return isRegistryHost(value.slice(2)) && !value.includes(":");
  const { name, suffix } = splitSuffix(value);
  return isLocation(name) && (suffix === "" || suffix.startsWith(":") || isDigest(suffix.slice(1)));
}

const text = v.string("must be a string");
const flag = v.optional(v.boolean("must be true or false"), false);
const place = v.pipe(
  text,
  v.check((value) => !/^https?:/.test(value), "must not begin with http:// or https://"),
  v.transform((value) => canonicalPlace(value.replace(/\/+$/, ""))),
);
const location = v.pipe(place, v.check(isLocation, "must be host[:port][/path], without a tag"));
const prefix = v.pipe(place, v.check(isPrefix, "must be host[:port][/path[:tag]], or *.domain"));
const searchRegistry = v.pipe(place, v.check(isLocation, "must be host[:port]"));
const shortName = v.pipe(
  v.string(),
  v.check((name) => isShortName(name) && isRepositoryPath(name), "is no short name without a tag"),
);
const aliasTarget = v.pipe(
  text,
  v.check((name) => name === "" || (!isShortName(name) && isLocation(name)), "must be a full name without a tag"),
);
const helper = v.pipe(
  text,
  v.check((name) => name === authFilesHelper || isHelperName(name), "must be the name behind docker-credential-"),
);

const mirrorSchema = v.object({
  location,
  insecure: flag,
  "pull-from-mirror": v.optional(
    v.picklist(["", "all", "digest-only", "tag-only"], 'must be "all", "digest-only" or "tag-only"'),
    "",
  ),
});
const registrySchema = v.pipe(
  v.object({
    prefix: v.optional(v.union([v.literal(""), prefix], "must be host[:port][/path[:tag]], or *.domain"), ""),
    location: v.optional(v.union([v.literal(""), prefix], "must be host[:port][/path]"), ""),
    insecure: flag,
    blocked: flag,
    mirror: v.optional(v.array(mirrorSchema, "must be [[registry.mirror]] tables"), []),
    "mirror-by-digest-only": flag,
    "pull-from-mirror": v.optional(v.never("is for mirrors only")),
  }),
  v.check((table) => table.prefix !== "" || table.location !== "", "has neither a prefix nor a location"),
  v.check((table) => !table.location.startsWith("*"), "location: must not be a wildcard"),
  v.check(
    (table) => !table["mirror-by-digest-only"] || table.mirror.every((mirror) => mirror["pull-from-mirror"] === ""),
    "mirror-by-digest-only and a mirror's pull-from-mirror exclude each other",
  ),
);
const confSchema = v.object({
  registries: v.optional(v.never("is version 1 of the format, which is not read: write [[registry]] tables instead")),
  registry: v.optional(v.array(registrySchema, "must be [[registry]] tables"), []),
  "unqualified-search-registries": v.optional(v.array(searchRegistry, "must be a list of hosts")),
  "short-name-mode": v.optional(
    v.picklist(["", ...shortNameModes], 'must be "enforcing", "permissive" or "disabled"'),
    "",
  ),
  aliases: v.optional(v.record(shortName, aliasTarget, "must be a table"), {}),
  "credential-helpers": v.optional(v.array(helper, "must be a list of names")),
});

type Table = v.InferOutput<typeof confSchema>;
type RegistryTable = Table["registry"][number];

function ruleOf(table: RegistryTable): RegistryRule {
  const { name, suffix } = splitSuffix(table.prefix === "" ? table.location : table.prefix);
  const target = splitSuffix(table.location === "" ? name : table.location);
  if (target.suffix !== "" && target.suffix !== suffix)
    throw new FileIssue(`registry "${table.prefix}": its location must not name a tag or digest of its own`);
  const isWildcard = name.startsWith("*");
  const everyMirror = table["mirror-by-digest-only"] ? "digest-only" : "all";
  return {
    prefix: name,
    suffix,
    location: isWildcard && table.location === "" ? undefined : target.name,
    isInsecure: table.insecure,
    isBlocked: table.blocked,
    mirrors: table.mirror.map((mirror) => ({
      location: mirror.location,
      isInsecure: mirror.insecure,
      pullFrom: mirror["pull-from-mirror"] === "" ? everyMirror : mirror["pull-from-mirror"],
    })),
  };
}

/**
 * The rules of one file by what they are for; the first of several counts, as in the library that Podman and CRI-O share.
 * One image cannot be blocked and not, insecure and not.
 */
function rulesOf(table: Table): ReadonlyMap<string, RegistryRule> {
  const rules = new Map<string, RegistryRule>();
  for (const rule of table.registry.map(ruleOf)) {
    const key = rule.prefix + rule.suffix;
    const other = rules.get(key);
    if (other !== undefined && (other.isBlocked !== rule.isBlocked || other.isInsecure !== rule.isInsecure))
      throw new FileIssue(`registry "${key}": stands there twice, and they disagree on blocked or insecure`);
    rules.set(key, other ?? rule);
  }
  return rules;
}

function parseTable(content: string): Table {
  return checkDocument(confSchema, parseToml(content));
}

/**
 * Reads the files in their order: a later one replaces single values, rules of the same prefix whole, and aliases one by
 * one, where an empty one erases.
 *
 * @throws {FileIssue} for the first file that cannot be used, version 1 of the format included.
 * @see containers-registries.conf(5), containers-registries.conf.d(5)
 */
export function parseRegistriesConf(files: readonly ReadFile[]): RegistriesConf {
  const tables = files.map((file) =>
    parseFile(file, (content) => {
      const table = parseTable(content);
      return { table, rules: rulesOf(table) };
    }),
  );
  const last = <Key extends keyof Table>(key: Key): Table[Key] | undefined =>
    tables.findLast(({ table }) => table[key] !== undefined && table[key] !== "")?.table[key];
  const aliases = new Map(tables.flatMap(({ table }) => Object.entries(table.aliases)));
  const rules = new Map(tables.flatMap((file) => [...file.rules]));
  const helpers = last("credential-helpers") ?? [];
  return {
    rules: [...rules.values()],
    searchRegistries: last("unqualified-search-registries"),
    shortNameMode: last("short-name-mode") || "permissive",
    aliases: new Map([...aliases].filter(([, target]) => target !== "")),
    credentialHelpers: helpers.length > 0 ? helpers : [authFilesHelper],
  };
}
