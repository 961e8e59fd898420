import type { ProxySettings } from "../registry/endpoint.ts";

/** Where the files lie that say how registries are reached and as whom, and what the environment adds. */
export interface RegistriesConfig {
  /** `registries.conf`, its drop-ins, and the aliases that tools have recorded; each may be absent. */
  readonly confFile: string;
  readonly confDir: string;
  readonly shortNameAliasesFile: string;
  /** containerd's `certs.d`, of `<host>/hosts.toml`; absent: none is read. */
  readonly hostsDir: string | undefined;
  /** Folders of `<host>[:<port>]/{*.crt,*.cert,*.key}`; the first that knows a host is the one for it. */
  readonly certsDirs: readonly string[];
  /** Files with credentials, in the order in which they are asked. */
  readonly authFiles: readonly AuthFilePath[];
  /** Where a credential provider leaves the credentials of one pull; absent: none are looked for. */
  readonly namespacedAuthDir: string | undefined;
  readonly proxies: ProxySettings;
  /** Bundles of certificate authorities; the first that exists is the system's. */
  readonly authorityFiles: readonly string[];
  /** What a credential helper runs with. */
  readonly helperEnvironment: { readonly PATH: string; readonly HOME: string };
}

export interface AuthFilePath {
  readonly path: string;
  /** `legacy` is `~/.dockercfg`: the `auths` alone. */
  readonly format: "auth.json" | "legacy";
}
