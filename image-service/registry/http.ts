import type { Readable } from "node:stream";

import { Agent } from "undici";

import { RegistryFailure } from "./failure.ts";
import type { RetryPolicy } from "./limits.ts";

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
export function transportFailure(error: unknown): RegistryFailure {
  const code = codeOf(error);
  const known = unreachable[code];
  if (known !== undefined) return new RegistryFailure("unreachable", `${known} (${code})`, { cause: error });
  const isCertificate = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|^ERR_SSL|^ERR_TLS/.test(code);
  if (isCertificate)
    return new RegistryFailure("unreachable", `the TLS certificate or handshake was refused (${code})`, {
      cause: error,
    });
  return new RegistryFailure("broken", `the connection broke (${code || "no reason given"})`, { cause: error });
}

/** Opens connections as needed and keeps them for the next request to the same host. */
export function createHttp(policy: RetryPolicy): Http {
  const agent = new Agent({
    allowH2: false, // one connection per layer: streams of one connection would share its window
    pipelining: 1,
    headersTimeout: policy.idleTimeoutMs,
    bodyTimeout: policy.idleTimeoutMs,
    keepAliveTimeout: 4000,
    connect: { timeout: Math.min(policy.idleTimeoutMs, 30_000) },
  });
  return {
    async request(url, request, signal) {
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
        throw transportFailure(thrown);
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
