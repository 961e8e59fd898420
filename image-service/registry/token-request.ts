import * as v from "valibot";

import type { Challenge } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import type { NetworkSettings } from "./endpoint.ts";
import { RegistryFailure } from "./failure.ts";
import { type Http, type HttpRequest, readBody } from "./http.ts";
import type { Token } from "./tokens.ts";

const tokenSchema = v.object({
  token: v.optional(v.string()),
  access_token: v.optional(v.string()),
  expires_in: v.optional(v.number()),
});

/** Lifetime of a token whose issuer names none, by the distribution spec. */
const defaultLifetimeMs = 60_000;
const maxLifetimeMs = 24 * 3600 * 1000;
const tokenCharacters = /^[\x21-\x7e]+$/;

export interface TokenRequest {
  readonly challenge: Challenge;
  readonly scope: string;
  /** Origin of the registry that asked for the token. */
  readonly origin: string;
  /** Whether a verified certificate vouches for that registry, and so for its word. */
  readonly isProven: boolean;
  readonly credentials: Credentials | undefined;
  readonly network: NetworkSettings;
  readonly maxBytes: number;
}

/**
 * Where the token is to be fetched. The realm is the registry's word, and often another host (`auth.docker.io`). The
 * secret is the registry's: one that proved itself, and could ask for it by Basic, may have it sent elsewhere, over
 * verified TLS. Whoever answers over plain HTTP or unverified TLS may not: then only the registry's own origin gets it,
 * and hosts that the operator marked insecure.
 */
function realmOf({ challenge, origin, isProven, credentials, network }: TokenRequest): URL {
  const realm = challenge.parameters["realm"];
  if (realm === undefined || !URL.canParse(realm))
    throw new RegistryFailure("unauthorized", "the registry asks for a token but names no realm");
  const url = new URL(realm);
  url.username = "";
  url.password = "";
  if (url.origin === origin || (network.insecureHosts.includes(url.host) && /^https?:$/.test(url.protocol))) return url;
  if (url.protocol !== "https:")
    throw new RegistryFailure("unauthorized", `the token realm "${url.host}" is not reached over TLS`);
  if (credentials !== undefined && !isProven)
    throw new RegistryFailure(
      "unauthorized",
      `the token realm "${url.host}" is another host, and no verified TLS vouches for the registry that names it`,
    );
  return url;
}

function exchangeOf(request: TokenRequest, realm: URL): HttpRequest {
  const service = request.challenge.parameters["service"] ?? "";
  const { credentials } = request;
  if (credentials?.kind === "identity") {
    const form = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: credentials.identityToken,
      client_id: "berth",
      service,
      scope: request.scope,
    });
    return {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded", accept: "application/json" },
      body: form.toString(),
    };
  }
  if (service !== "") realm.searchParams.set("service", service);
  realm.searchParams.append("scope", request.scope);
  if (credentials?.kind !== "basic") return { headers: { accept: "application/json" } };
  realm.searchParams.set("account", credentials.username);
  return { headers: { accept: "application/json", authorization: basicAuthorization(credentials) } };
}

export function basicAuthorization(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Fetches a bearer token; redirects of a token server are not followed, since they would carry the secret along. */
export async function requestToken(http: Http, request: TokenRequest, signal: AbortSignal): Promise<Token> {
  const realm = realmOf(request);
  const exchange = exchangeOf(request, realm);
  const response = await http.request(realm, exchange, signal);
  const body = await readBody(response, request.maxBytes, "the token server's answer");
  if (response.status >= 500)
    throw new RegistryFailure("server-error", `the token server "${realm.host}" answered ${response.status}`);
  if (response.status !== 200)
    throw new RegistryFailure("unauthorized", `the token server "${realm.host}" answered ${response.status}`);
  const parsed = v.safeParse(tokenSchema, parseJson(body.toString("utf8")));
  const value = parsed.success ? (parsed.output.token ?? parsed.output.access_token) : undefined;
  if (!parsed.success || value === undefined || !tokenCharacters.test(value))
    throw new RegistryFailure("invalid", `the token server "${realm.host}" answered without a token`);
  const lifetimeMs = Math.min(maxLifetimeMs, (parsed.output.expires_in ?? 0) * 1000 || defaultLifetimeMs);
  return { value, expiresAtMs: Date.now() + Math.max(lifetimeMs, defaultLifetimeMs) };
}
