import type { Readable } from "node:stream";
import { Agent, type buildConnector, type Dispatcher, Pool, ProxyAgent } from "undici";

import type { Authorities } from "./authorities.ts";
import type { Endpoint, NetworkSettings } from "./endpoint.ts";
import { RegistryFailure } from "./failure.ts";
import type { RetryPolicy } from "./limits.ts";
import { proxyFor } from "./proxy.ts";

export interface HttpRequest {
  readonly method?: "GET" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Must be read to its end or destroyed. */
  readonly body: Readable;
}

/** Plain exchanges: no redirects, no credentials, no retries. */
export interface Http extends AsyncDisposable {
  request(url: URL, request: HttpRequest, signal: AbortSignal): Promise<HttpResponse>;
}

export interface HttpParts {
  readonly endpoint: Pick<Endpoint, "address" | "tls" | "connectTimeoutMs">;
  readonly network: NetworkSettings;
  readonly policy: RetryPolicy;
  readonly authorities: Authorities;
}

/** Nobody answers there: trying again at once would only hide it. */
const unreachable: Readonly<Partial<Record<string, string>>> = {
  ECONNREFUSED: "connection refused",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the host name cannot be resolved",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "network unreachable",
  UND_ERR_CONNECT_TIMEOUT: "no connection in time",
  ETIMEDOUT: "no connection in time",
};

function codeOf(error: unknown): string {
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** Names a transport error by what a reader can act on. */
export function transportFailure(error: unknown, way = ""): RegistryFailure {
  const code = codeOf(error);
  const known = unreachable[code];
  if (known !== undefined) return new RegistryFailure("unreachable", `${known} (${code})${way}`, { cause: error });
  const isCertificate = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|^ERR_SSL|^ERR_TLS|^EPROTO$/.test(code);
  if (isCertificate)
    return new RegistryFailure("unreachable", `the TLS certificate or handshake was refused (${code})${way}`, {
      cause: error,
    });
  return new RegistryFailure("broken", `the connection broke (${code || "no reason given"})${way}`, { cause: error });
}

/** Whether the host has to prove itself. */
function isVerified({ endpoint, network }: HttpParts, host: string): boolean {
  return host === endpoint.address ? endpoint.tls.isVerified : !network.insecureHosts.includes(host);
}

/** Our own certificate is for the endpoint alone; its authorities also speak for the hosts it leads to. */
function tlsOptions(parts: HttpParts, host: string): buildConnector.BuildOptions {
  const { endpoint, authorities } = parts;
  const { tls, address } = endpoint;
  const clientCertificates = host === address ? tls.clientCertificates : [];
  const isPlain = tls.authorities.length === 0 && clientCertificates.length === 0;
  return {
    rejectUnauthorized: isVerified(parts, host),
    ...(isPlain ? {} : { secureContext: authorities.contextFor({ authorities: tls.authorities, clientCertificates }) }),
  };
}

function poolOptions(policy: RetryPolicy): Omit<Pool.Options, "connect"> {
  return {
    allowH2: false, // one connection per layer: streams of one connection would share its window
    pipelining: 1,
    headersTimeout: policy.idleTimeoutMs,
    bodyTimeout: policy.idleTimeoutMs,
    keepAliveTimeout: 4000,
  };
}

function connectTo(parts: HttpParts, origin: URL): Dispatcher {
  const { endpoint, policy, network } = parts;
  const timeout = endpoint.connectTimeoutMs ?? Math.min(policy.idleTimeoutMs, 30_000);
  const tls = origin.protocol === "https:" ? tlsOptions(parts, origin.host) : {};
  const proxy = proxyFor(network.proxies, origin);
  const options = poolOptions(policy);
  if (proxy === undefined) return new Pool(origin, { ...options, connect: { timeout, ...tls } });
  return new ProxyAgent({ ...options, uri: proxy.href, proxyTunnel: false, requestTls: tls, connectTimeout: timeout });
}

function wayTo({ network }: HttpParts, url: URL): string {
  const proxy = proxyFor(network.proxies, url);
  return proxy === undefined ? "" : ` through the proxy "${proxy.host}"`;
}

/** Opens connections as needed and keeps them for the next request to the same host. */
export function createHttp(parts: HttpParts): Http {
  const agent = new Agent({ factory: (origin) => connectTo(parts, new URL(origin)) });
  return {
    async request(url, request, signal) {
      if (url.protocol === "https:" && isVerified(parts, url.host))
        await parts.authorities.load(parts.network.authorityFiles);
      try {
        const response = await agent.request({
          origin: url.origin,
          path: `${url.pathname}${url.search}`,
          method: request.method ?? "GET",
          headers: { "user-agent": "berth", ...request.headers },
          body: request.body ?? null,
          signal,
          highWaterMark: 512 << 10,
        });
        return { status: response.statusCode, headers: response.headers, body: response.body };
      } catch (thrown) {
        signal.throwIfAborted();
        throw thrown instanceof RegistryFailure ? thrown : transportFailure(thrown, wayTo(parts, url));
      }
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  };
}

/** A header's only value; repeated headers count as one list. */
export function headerOf(response: HttpResponse, name: string): string | undefined {
  const value = response.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

/** Reads a body of at most `maxBytes`. */
export async function readBody(response: HttpResponse, maxBytes: number, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) throw new RegistryFailure("invalid", `${what} is larger than ${maxBytes} bytes`);
      chunks.push(chunk);
    }
  } catch (thrown) {
    throw thrown instanceof RegistryFailure ? thrown : transportFailure(thrown);
  } finally {
    response.body.destroy();
  }
  return Buffer.concat(chunks, length);
}
