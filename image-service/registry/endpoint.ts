import type { ImageReference } from "../reference.ts";

/** One place a repository can be read from. */
export interface Endpoint {
  /** As the operator wrote it; stands in errors. */
  readonly host: string;
  /** `https://registry-1.docker.io`: scheme and host, no trailing slash. */
  readonly origin: string;
  /** Repository path below `/v2/`. */
  readonly repository: string;
  readonly isMirror: boolean;
}

export interface RegistryConfig {
  /** `host[:port][/prefix]`, tried in order before the host itself. */
  readonly mirrors?: readonly string[] | undefined;
  /** Plain HTTP is used for this host. */
  readonly insecure?: boolean | undefined;
}

export type Registries = Readonly<Record<string, RegistryConfig>>;

/** The host names whose API lives elsewhere. */
const apiHosts: Partial<Record<string, string>> = { "docker.io": "registry-1.docker.io" };

function configOf(registries: Registries, host: string): RegistryConfig | undefined {
  return Object.hasOwn(registries, host) ? registries[host] : undefined;
}

/** True when the operator allows plain HTTP to `host` (with port). */
export function isInsecure(registries: Registries, host: string): boolean {
  return configOf(registries, host)?.insecure === true;
}

function endpointOf(registries: Registries, location: string, path: string, isMirror: boolean): Endpoint {
  const [host = "", ...prefix] = location.replace(/\/+$/, "").split("/");
  const scheme = isInsecure(registries, host) ? "http" : "https";
  return {
    host: location,
    origin: `${scheme}://${apiHosts[host] ?? host}`,
    repository: [...prefix, path].join("/"),
    isMirror,
  };
}

/** Where to ask for an image, in order: the mirrors of its host, then the host itself. */
export function endpointsOf(registries: Registries, reference: ImageReference): readonly Endpoint[] {
  const mirrors = configOf(registries, reference.domain)?.mirrors ?? [];
  return [
    ...mirrors.map((mirror) => endpointOf(registries, mirror, reference.path, true)),
    endpointOf(registries, reference.domain, reference.path, false),
  ];
}
