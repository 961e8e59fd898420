import type { Credentials } from "./credentials.ts";

/** How a host proves itself over TLS, and we to it; PEM throughout. */
export interface TlsSettings {
  /** False: any certificate will do. */
  readonly isVerified: boolean;
  /** Trusted beside the system's. */
  readonly authorities: readonly string[];
  /** Shown to this host alone; `key` holds the certificate's private key. */
  readonly clientCertificates: readonly { readonly certificate: string; readonly key: string }[];
}

/** One place a repository can be read from, and how. */
export interface Endpoint {
  /** As the operator wrote it; stands in errors. */
  readonly host: string;
  /** `host[:port]` of the API, which for Docker Hub is another one. */
  readonly address: string;
  /** Tried in this order until one answers. */
  readonly schemes: readonly ("https" | "http")[];
  /** What stands before the repository: `/v2`, unless the operator says otherwise. */
  readonly apiPath: string;
  /** Repository path below `apiPath`. */
  readonly repository: string;
  /** Added to every request: `?ns=<registry>`, for proxies that stand for several; empty for the others. */
  readonly query: string;
  /** More headers, for this host alone. */
  readonly headers: Readonly<Record<string, string>>;
  readonly isMirror: boolean;
  /** Whether it may say what a tag stands for; content known by its digest is asked of every endpoint. */
  readonly canResolve: boolean;
  readonly tls: TlsSettings;
  /** For this host alone. */
  readonly credentials: Credentials | undefined;
  /** Milliseconds a connection may take to come about. */
  readonly connectTimeoutMs: number | undefined;
}

/** What all endpoints of a pull have in common. */
export interface NetworkSettings {
  /** `host[:port]` of those with which plain HTTP and unverified TLS are allowed. */
  readonly insecureHosts: readonly string[];
  readonly proxies: ProxySettings;
  /** Bundles of certificate authorities; the first that exists is the system's. */
  readonly authorityFiles: readonly string[];
}

/** HTTP_PROXY, HTTPS_PROXY and NO_PROXY as they stand in the environment; empty where they do not. */
export interface ProxySettings {
  readonly httpProxy: string;
  readonly httpsProxy: string;
  readonly noProxy: string;
}

/** The host names whose API lives elsewhere. */
const apiHosts: Partial<Record<string, string>> = { "docker.io": "registry-1.docker.io" };

/** Where the API of a registry lives, by the host that names have; spelled as URLs spell it. */
export function apiAddressOf(host: string): string {
  const { host: address } = new URL(`https://${host}`);
  return (Object.hasOwn(apiHosts, address) ? apiHosts[address] : undefined) ?? address;
}
