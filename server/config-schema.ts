import * as v from "valibot";

/** TOML's tables only: valibot takes arrays and dates for objects as well. */
export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

const anyTable = v.custom<Record<string, unknown>>(isTable, "must be a table");

type Table<Entries extends v.ObjectEntries> = v.GenericSchema<
  v.InferInput<v.ObjectSchema<Entries, undefined>>,
  v.InferOutput<v.ObjectSchema<Entries, undefined>>
>;

/**
 * A table without other keys. strictObject would report the first unknown key only; here each is an issue of its own.
 * The index signature that the rest brings into the type says nothing, since it is `never`, and is left out.
 */
function table<const Entries extends v.ObjectEntries>(entries: Entries): Table<Entries> {
  const schema: unknown = v.pipe(anyTable, v.objectWithRest(entries, v.never("is not a known key")));
  return schema as Table<Entries>;
}

const text = v.string("must be a string");
const absolutePath = v.pipe(
  text,
  v.regex(/^\/(?!.*(?:\/\/|\/\.{1,2}(?:\/|$)))/, "must be an absolute path without // or . or .. in it"),
  v.regex(/^[^\0\n]*$/, "must not hold a newline or a NUL"),
);
const directory = v.pipe(
  absolutePath,
  v.check((path) => path !== "/", "must not be /"),
  v.transform((path) => path.replace(/\/$/, "")),
);
/** A unix socket's path must fit sockaddr_un, with room for the name it is made under. */
const socketPath = v.pipe(absolutePath, v.maxBytes(100, "must be at most 100 bytes long"));
const program = v.pipe(
  text,
  v.regex(/^(?:\/[^\0\n]+|[^/\0\s]+)$/, "must be an absolute path, or a name to look up in PATH"),
);
const handlerName = v.pipe(
  v.string(),
  v.regex(
    /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/,
    "must be a runtime handler's name: lower-case letters, digits and -",
  ),
);
function choice<const Values extends readonly string[]>(values: Values): v.PicklistSchema<Values, string> {
  return v.picklist(values, `must be one of ${values.map((value) => `"${value}"`).join(", ")}`);
}

const runtime = table({ path: program });

const cni = table({
  conf_dir: v.optional(directory, "/etc/cni/net.d"),
  plugin_dirs: v.optional(
    v.pipe(v.array(directory, "must be a list of directories"), v.minLength(1, "must name a directory")),
    ["/opt/cni/bin", "/usr/lib/cni"],
  ),
  cache_dir: v.optional(directory, "/var/lib/cni"),
  default_network: v.optional(text, ""),
});

const optionalFile = v.optional(v.union([v.literal(""), absolutePath], "must be an absolute path, or empty"), "");

const streaming = table({
  address: v.optional(v.pipe(text, v.ip("must be an IP address")), "127.0.0.1"),
  port: v.optional(v.pipe(v.number("must be a number"), v.integer(), v.minValue(0), v.maxValue(65_535)), 0),
  tls_cert: optionalFile,
  tls_key: optionalFile,
  tls_client_ca: optionalFile,
  idle_timeout_s: v.optional(
    v.pipe(v.number("must be a number"), v.integer(), v.minValue(0), v.maxValue(604_800)),
    14_400,
  ),
});

const metrics = table({
  address: v.optional(v.pipe(text, v.ip("must be an IP address")), "127.0.0.1"),
  port: v.optional(v.pipe(v.number("must be a number"), v.integer(), v.minValue(0), v.maxValue(65_535)), 0),
});

const pinnedImage = v.pipe(
  text,
  v.regex(/^[A-Za-z0-9._:/@[\]*-]{1,512}$/, "must be an image's name, or a full name with * for any text"),
);

const directoryOrNone = v.union([v.literal(""), directory], "must be an absolute path, or empty");

const registries = table({
  conf_file: v.optional(absolutePath, "/etc/containers/registries.conf"),
  conf_dir: v.optional(directory, "/etc/containers/registries.conf.d"),
  short_name_aliases_file: v.optional(absolutePath, "/var/cache/containers/short-name-aliases.conf"),
  hosts_dir: v.optional(directoryOrNone, ""),
  certs_dirs: v.optional(v.array(directory, "must be a list of directories"), [
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
  ]),
  auth_file: optionalFile,
  namespaced_auth_dir: v.optional(directoryOrNone, "/etc/crio/auth"),
});

/** Below every file, so that a file which adds a runtime keeps these. */
export const defaultTable = { runtimes: { crun: { path: "crun" }, runc: { path: "runc" } } };

/** One file, or all of them merged: every other key has its default here, and nowhere else. */
export const configSchema = table({
  root: v.optional(directory, "/var/lib/berth"),
  state: v.optional(directory, "/run/berth"),
  socket: v.optional(socketPath, "/run/berth/berth.sock"),
  log_level: v.optional(choice(["debug", "info", "warn", "error"]), "info"),
  cgroup_driver: v.optional(choice(["cgroupfs", "systemd"]), "cgroupfs"),
  default_runtime: v.optional(text, "crun"),
  monitor: v.optional(program, "conmon"),
  runtimes: v.optional(v.record(handlerName, runtime, "must be a table of tables"), {
    crun: { path: "crun" },
    runc: { path: "runc" },
  }),
  cni: v.optional(cni, {}),
  streaming: v.optional(streaming, {}),
  cdi_spec_dirs: v.optional(v.array(directory, "must be a list of directories"), ["/etc/cdi", "/var/run/cdi"]),
  metrics: v.optional(metrics, {}),
  pinned_images: v.optional(v.array(pinnedImage, "must be a list of names"), []),
  image_volumes: v.optional(choice(["mkdir", "bind", "ignore"]), "mkdir"),
  pull_progress_timeout_s: v.optional(
    v.pipe(v.number("must be a number"), v.integer(), v.minValue(1), v.maxValue(604_800)),
    300,
  ),
  signature_policy: optionalFile,
  signature_policy_dir: v.optional(directory, "/etc/berth/policies"),
  signature_sources_dir: v.optional(directory, "/etc/containers/registries.d"),
  registries: v.optional(registries, {}),
});

export type ConfigTable = v.InferOutput<typeof configSchema>;

/** One thing wrong with a configuration, and the keys that lead to it. */
export interface ConfigIssue {
  readonly path: readonly (string | number)[];
  readonly text: string;
}

function isKey(key: unknown): key is string | number {
  return typeof key === "string" || typeof key === "number";
}

function describeReceived(issue: v.BaseIssue<unknown>): string {
  return issue.type === "never" || typeof issue.input === "object"
    ? ""
    : `, not ${JSON.stringify(issue.input) ?? "unset"}`;
}

/** Checks a parsed table and reports everything that is wrong with it at once. */
export function checkTable(table: unknown): {
  readonly config: ConfigTable | undefined;
  readonly issues: ConfigIssue[];
} {
  const result = v.safeParse(configSchema, table);
  const issues = (result.issues ?? []).map((issue) => ({
    path: (issue.path ?? []).map((item: { key: unknown }) => item.key).filter(isKey),
    text: `${issue.message}${describeReceived(issue)}`,
  }));
  return { config: result.success ? result.output : undefined, issues };
}

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(`${outer}/`);
}

/** What only shows when all keys are known. */
export function checkTogether(config: ConfigTable): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  if (!Object.hasOwn(config.runtimes, config.default_runtime)) {
    issues.push({ path: ["default_runtime"], text: `names no table of runtimes: "${config.default_runtime}"` });
  }
  const { tls_cert, tls_key, tls_client_ca } = config.streaming;
  if ((tls_cert === "") !== (tls_key === "") || (tls_client_ca !== "" && tls_cert === "")) {
    issues.push({ path: ["streaming", "tls_cert"], text: "and tls_key go together, and tls_client_ca with them" });
  }
  if (isWithin(config.root, config.state) || isWithin(config.state, config.root)) {
    issues.push({ path: ["state"], text: `must not lie in root, nor root in it: "${config.state}", "${config.root}"` });
  }
  return issues;
}
