import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse, TomlError } from "smol-toml";
import { errnoOf } from "../cri-api/index.ts";
import { locateKey, renderKeyPath } from "./config-locate.ts";
import { checkTable, checkTogether, defaultTable, isTable } from "./config-schema.ts";
import type { ConfigIssue, ConfigTable } from "./config-schema.ts";
import type { TrustConfig } from "../image-service/index.ts";
import type { MetricsConfig } from "./metrics/index.ts";
import type { StreamingConfig } from "./streaming/index.ts";

export const defaultConfigPath = "/etc/berth/berth.toml";

export type LogLevel = ConfigTable["log_level"];

/** Where the operator's files on registries lie; the environment adds to them. */
export interface RegistryFiles {
  readonly confFile: string;
  readonly confDir: string;
  readonly shortNameAliasesFile: string;
  readonly certsDirs: readonly string[];
  /** Those below are absent where the configuration leaves them empty. */
  readonly hostsDir?: string;
  readonly authFile?: string;
  readonly namespacedAuthDir?: string;
}

/** The whole configuration, frozen at every depth; wiring hands each room its own part. */
export interface Config {
  readonly root: string;
  readonly state: string;
  readonly socket: string;
  readonly logLevel: LogLevel;
  readonly cgroupDriver: ConfigTable["cgroup_driver"];
  readonly defaultRuntime: string;
  readonly monitor: string;
  /** By handler. */
  readonly runtimes: Readonly<Record<string, { readonly path: string }>>;
  readonly cni: {
    readonly confDir: string;
    readonly pluginDirs: readonly string[];
    readonly cacheDir: string;
    /** Absent: the first network by file name. */
    readonly defaultNetwork?: string;
  };
  readonly streaming: StreamingConfig;
  /** Where the files of CDI devices are; a later directory wins. */
  readonly cdiSpecDirs: readonly string[];
  readonly metrics: MetricsConfig;
  /** Names, or full names with `*` for any text. */
  readonly pinnedImages: readonly string[];
  /** What becomes of the volumes that images declare. */
  readonly imageVolumes: ConfigTable["image_volumes"];
  readonly pullProgressTimeoutMs: number;
  readonly trust: TrustConfig;
  readonly registries: RegistryFiles;
}

/** Values from the command line; they win over every file. */
export interface ConfigFlags {
  /** A file that must exist; without it the default one is read if it is there. */
  readonly config?: string | undefined;
  readonly root?: string | undefined;
  readonly state?: string | undefined;
  readonly socket?: string | undefined;
  readonly "log-level"?: string | undefined;
}

/** Everything that is wrong with a configuration, one issue a line: `file:line: key.path: what`. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly issues: readonly string[];
  constructor(issues: readonly string[]) {
    super(issues.join("\n"));
    this.issues = issues;
  }
}

interface Source {
  readonly name: string;
  readonly toml: string;
}

async function readSource(path: string, isRequired: boolean): Promise<Source[]> {
  try {
    return [{ name: path, toml: await readFile(path, "utf8") }];
  } catch (thrown) {
    if (!isRequired && errnoOf(thrown) === "ENOENT") return [];
    throw new ConfigError([`${path}: cannot be read: ${errnoOf(thrown) ?? String(thrown)}`]);
  }
}

async function readDropIns(directory: string): Promise<Source[]> {
  const names = await readdir(directory).catch((thrown: unknown) => {
    if (errnoOf(thrown) === "ENOENT") return [];
    throw new ConfigError([`${directory}: cannot be read: ${errnoOf(thrown) ?? String(thrown)}`]);
  });
  const wanted = names.filter((name) => name.endsWith(".toml") && !name.startsWith(".")).sort();
  const sources = await Promise.all(wanted.map((name) => readSource(join(directory, name), true)));
  return sources.flat();
}

function describeIssue(source: Source | undefined, issue: ConfigIssue): string {
  const line = source && locateKey(source.toml, issue.path);
  const place = source ? `${source.name}${line === undefined ? "" : `:${line}`}: ` : "";
  const keys = renderKeyPath(issue.path);
  return `${place}${keys === "" ? "" : `${keys}: `}${issue.text}`;
}

function parseSource(source: Source): { table: Record<string, unknown>; issues: string[] } {
  try {
    const table = parse(source.toml, { unsafeKeyBehaviour: "throw", maxDepth: 32 });
    return { table, issues: checkTable(table).issues.map((issue) => describeIssue(source, issue)) };
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown;
    const [first] = thrown.message.split("\n");
    return { table: {}, issues: [`${source.name}:${thrown.line}: ${first ?? "not TOML"}`] };
  }
}

function mergeTables(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const merged = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const below = merged[key];
    merged[key] = isTable(below) && isTable(value) ? mergeTables(below, value) : value;
  }
  return merged;
}

function freezeDeep<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const inner of Object.values(value)) freezeDeep(inner);
  return Object.freeze(value);
}

/** A client has so long to open its streams, as in both peers. */
const streamCreationTimeoutMs = 30_000;

function toStreaming(table: ConfigTable["streaming"]): StreamingConfig {
  const { address, port, tls_cert: certFile, tls_key: keyFile, tls_client_ca: clientCaFile } = table;
  const tls = certFile === "" ? {} : { tls: { certFile, keyFile, ...(clientCaFile === "" ? {} : { clientCaFile }) } };
  return { address, port, ...tls, idleTimeoutMs: table.idle_timeout_s * 1000, streamCreationTimeoutMs };
}

function toTrust(table: ConfigTable): TrustConfig {
  return {
    policyPath: table.signature_policy,
    namespacePolicies: table.signature_policy_dir,
    registriesDirectory: table.signature_sources_dir,
  };
}

function toRegistryFiles(table: ConfigTable["registries"]): RegistryFiles {
  const { hosts_dir: hostsDir, auth_file: authFile, namespaced_auth_dir: namespacedAuthDir } = table;
  return {
    confFile: table.conf_file,
    confDir: table.conf_dir,
    shortNameAliasesFile: table.short_name_aliases_file,
    certsDirs: table.certs_dirs,
    ...(hostsDir === "" ? {} : { hostsDir }),
    ...(authFile === "" ? {} : { authFile }),
    ...(namespacedAuthDir === "" ? {} : { namespacedAuthDir }),
  };
}

function toConfig(table: ConfigTable): Config {
  const { conf_dir, plugin_dirs, cache_dir, default_network } = table.cni;
  const defaultNetwork = default_network === "" ? {} : { defaultNetwork: default_network };
  return freezeDeep({
    root: table.root,
    state: table.state,
    socket: table.socket,
    logLevel: table.log_level,
    cgroupDriver: table.cgroup_driver,
    defaultRuntime: table.default_runtime,
    monitor: table.monitor,
    runtimes: table.runtimes,
    cni: { confDir: conf_dir, pluginDirs: plugin_dirs, cacheDir: cache_dir, ...defaultNetwork },
    streaming: toStreaming(table.streaming),
    cdiSpecDirs: table.cdi_spec_dirs,
    metrics: table.metrics,
    pinnedImages: table.pinned_images,
    imageVolumes: table.image_volumes,
    pullProgressTimeoutMs: table.pull_progress_timeout_s * 1000,
    trust: toTrust(table),
    registries: toRegistryFiles(table.registries),
  });
}

function tableOfFlags(flags: ConfigFlags): Record<string, unknown> {
  const table = { root: flags.root, state: flags.state, socket: flags.socket, log_level: flags["log-level"] };
  return Object.fromEntries(Object.entries(table).filter(([, value]) => value !== undefined));
}

/**
 * Reads the file, its drop-ins and the flags.
 *
 * @throws {ConfigError} with everything that is wrong, in every file, at once.
 */
export async function loadConfig(flags: ConfigFlags): Promise<Config> {
  const path = flags.config ?? defaultConfigPath;
  const sources = [...(await readSource(path, flags.config !== undefined)), ...(await readDropIns(`${path}.d`))];
  const parsed = sources.map(parseSource);
  const flagTable = tableOfFlags(flags);
  const issues = [
    ...parsed.flatMap((file) => file.issues),
    ...checkTable(flagTable).issues.map((issue) => `command line: ${describeIssue(undefined, issue)}`),
  ];
  const merged = [...parsed.map((file) => file.table), flagTable].reduce(mergeTables, defaultTable);
  const { config } = checkTable(merged);
  if (config) issues.push(...checkTogether(config).map((issue) => describeIssue(undefined, issue)));
  if (issues.length > 0 || !config) throw new ConfigError(issues);
  return toConfig(config);
}

/** What Berth takes from its environment. */
export interface Environment {
  /** Where programs are looked up. */
  readonly path: string;
  /** systemd's notification socket, when it waits for us to be ready. */
  readonly notifySocket: string | undefined;
  /** systemd restarts us when it does not hear for so long that we live; undefined when it does not watch. */
  readonly watchdogTimeoutMs: number | undefined;
  /** For files of the user that we are. */
  readonly home: string;
  /** Folders and files that tools of containers let the environment move. */
  readonly moved: {
    readonly registryAuthFile: string | undefined;
    readonly runtimeDir: string | undefined;
    readonly configHome: string | undefined;
    readonly dockerConfig: string | undefined;
    readonly sslCertFile: string | undefined;
  };
  /** Empty where they are not set. */
  readonly proxies: { readonly httpProxy: string; readonly httpsProxy: string; readonly noProxy: string };
}

/** An absolute path, or nothing: relative ones would depend on where we were started. */
function readPath(name: string): string | undefined {
  const path = process.env[name];
  return path?.startsWith("/") ? path : undefined;
}

/** Proxies go by either spelling; the upper-case one wins, unless it is empty. */
function readEither(name: string): string {
  return process.env[name] || process.env[name.toLowerCase()] || "";
}

function readWatchdogTimeout(): number | undefined {
  const { WATCHDOG_PID: pid, WATCHDOG_USEC: timeoutUs } = process.env;
  const isForUs = pid === undefined || pid === String(process.pid);
  const timeoutMs = Number(timeoutUs) / 1000;
  return isForUs && timeoutMs > 0 ? timeoutMs : undefined;
}

export function readEnvironment(): Environment {
  return {
    path: process.env["PATH"] ?? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    notifySocket: process.env["NOTIFY_SOCKET"],
    watchdogTimeoutMs: readWatchdogTimeout(),
    home: readPath("HOME") ?? "/root",
    moved: {
      registryAuthFile: readPath("REGISTRY_AUTH_FILE"),
      runtimeDir: readPath("XDG_RUNTIME_DIR"),
      configHome: readPath("XDG_CONFIG_HOME"),
      dockerConfig: readPath("DOCKER_CONFIG"),
      sslCertFile: readPath("SSL_CERT_FILE"),
    },
    proxies: {
      httpProxy: readEither("HTTP_PROXY"),
      httpsProxy: readEither("HTTPS_PROXY"),
      noProxy: readEither("NO_PROXY"),
    },
  };
}
