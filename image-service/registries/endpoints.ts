import type { ImageReference } from "../reference.ts";
import { type Credentials, registryHostOf } from "../registry/credentials.ts";
import { apiAddressOf, type Endpoint } from "../registry/endpoint.ts";
import type { Certificates } from "./certificates.ts";
import { type CredentialSources, findCredentials } from "./find-credentials.ts";
import type { HostFile } from "./host-files.ts";
import type { PullAuth } from "./pull-auth.ts";
import type { PullSource } from "./pull-sources.ts";

/** What an endpoint is made of. */
export interface EndpointSources {
  readonly reference: ImageReference;
  readonly auth: PullAuth;
  readonly credentials: CredentialSources;
  certificatesOf(host: string): Promise<Certificates>;
}

/**
 * Who we are to a host. The request's credentials are for the image's registry, wherever the operator says it is, or for
 * the server they name; a mirror gets what the node has for it under its own name.
 */
async function credentialsFor(
  { auth, credentials, reference }: EndpointSources,
  location: string,
  isMirror: boolean,
): Promise<Credentials | undefined> {
  const isForImage = auth.server === "" || auth.server === registryHostOf(reference.domain);
  const isForHost = auth.server !== "" && auth.server === registryHostOf(location);
  if (auth.credentials !== undefined && ((isForImage && !isMirror) || isForHost)) return auth.credentials;
  return await findCredentials(credentials, location);
}

/** The endpoint of a place that registries.conf names. */
export async function endpointOfSource(sources: EndpointSources, source: PullSource): Promise<Endpoint> {
  const { location, isInsecure, isMirror } = source;
  const [host = "", ...path] = location.split("/");
  return {
    host: source.place,
    address: apiAddressOf(host),
    schemes: isInsecure ? ["https", "http"] : ["https"],
    apiPath: "/v2",
    repository: path.join("/"),
    query: "",
    headers: {},
    isMirror,
    canResolve: true,
    tls: { isVerified: !isInsecure, ...(await sources.certificatesOf(host)) },
    credentials: await credentialsFor(sources, location, isMirror),
    connectTimeoutMs: undefined,
  };
}

/** HTTPS is tried first where anything is said of TLS, as containerd does. */
function schemesOf({ server, skipVerify, certificates }: HostFile["hosts"][number]): Endpoint["schemes"] {
  if (server?.protocol !== "http:") return ["https"];
  const { authorities, clientCertificates } = certificates;
  return skipVerify || authorities.length > 0 || clientCertificates.length > 0 ? ["https", "http"] : ["http"];
}

/** The endpoint of a host that a hosts.toml names. */
export async function endpointOfHost(sources: EndpointSources, entry: HostFile["hosts"][number]): Promise<Endpoint> {
  const { domain, path } = sources.reference;
  const address = apiAddressOf(entry.server?.host ?? domain);
  const isOwn = address === apiAddressOf(domain);
  const host = isOwn ? domain : address;
  const isMirror = !entry.isServer && !isOwn;
  return {
    host,
    address,
    schemes: schemesOf(entry),
    apiPath: entry.apiPath,
    repository: path,
    query: isOwn ? "" : `?ns=${encodeURIComponent(domain)}`,
    headers: entry.headers,
    isMirror,
    canResolve: entry.canResolve,
    tls: { isVerified: !entry.skipVerify, ...entry.certificates },
    credentials: await credentialsFor(sources, `${host}/${path}`, isMirror),
    connectTimeoutMs: entry.connectTimeoutMs,
  };
}
