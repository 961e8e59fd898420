import { parseChallenges } from "./challenge.ts";
import { credentialsFingerprint } from "./credentials.ts";
import type { Endpoint, NetworkSettings } from "./endpoint.ts";
import { type Outcome, RegistryFailure } from "./failure.ts";
import { headerOf, type Http, type HttpResponse, readBody } from "./http.ts";
import type { PullLimits } from "./limits.ts";
import { redirectStatuses } from "./redirects.ts";
import { parseRetryAfter } from "./retry.ts";
import { basicAuthorization, requestToken } from "./token-request.ts";
import type { TokenCache } from "./tokens.ts";

/** Reads of one repository at one host, authenticated as needed. */
export interface RegistrySession {
  /** Once the host has answered, with the one scheme that it speaks. */
  readonly endpoint: Endpoint;
  /**
   * GET below `/v2/<repository>/`, or of a path from the host's root; resolves on 200 and 206 only, anything else is a
   * RegistryFailure.
   */
  get(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<HttpResponse>;
}

export interface SessionParts {
  readonly endpoint: Endpoint;
  readonly http: Http;
  readonly tokens: TokenCache;
  readonly network: NetworkSettings;
  readonly limits: PullLimits;
}

const maxRedirects = 8;
/** A scope worth asking for on a registry's word: a proxy may name the repository otherwise, never another action. */
const pullScope = /^repository:[^\s,]{1,512}:pull$/;
const outcomeByStatus: Readonly<Partial<Record<number, Outcome>>> = {
  401: "unauthorized",
  403: "denied",
  404: "absent",
  408: "broken",
  429: "throttled",
};

interface Exchange {
  readonly response: HttpResponse;
  /** False after a redirect to another origin: that host never sees our credentials, nor do we believe its 401. */
  readonly isOwnOrigin: boolean;
}

interface OwnExchange extends Exchange {
  /** Of the registry, whatever it redirected to. */
  readonly origin: string;
}

/** A registry's error text for a human: bounded, one line, no control characters. */
async function errorDetail(response: HttpResponse): Promise<string> {
  try {
    const text = (await readBody(response, 16 << 10, "the error")).toString("utf8");
    const parsed = JSON.parse(text) as { errors?: { code?: unknown }[] } | null;
    const code = parsed?.errors?.[0]?.code;
    return typeof code === "string" && /^[A-Z_]{1,64}$/.test(code) ? ` ${code}` : "";
  } catch {
    return "";
  }
}

/** What an answer means that is not the content asked for; its body is read. */
export async function statusFailure({ response, isOwnOrigin }: Exchange): Promise<RegistryFailure> {
  const { status } = response;
  const detail = await errorDetail(response);
  if (!isOwnOrigin && (status === 401 || status === 403))
    return new RegistryFailure("broken", `the host it redirected to answered ${status}`); // its URL may have expired
  const outcome = outcomeByStatus[status] ?? (status >= 500 ? "server-error" : "unexpected");
  const words: Partial<Record<Outcome, string>> = {
    unauthorized: "authentication required",
    denied: "access denied",
    absent: "not found",
    throttled: "too many requests",
    "server-error": "server error",
  };
  return new RegistryFailure(outcome, `${words[outcome] ?? "unexpected answer"} (${status}${detail})`, {
    retryAfterMs: parseRetryAfter(headerOf(response, "retry-after"), Date.now()),
  });
}

function redirectTarget(response: HttpResponse, from: URL, { network }: SessionParts): URL {
  const location = headerOf(response, "location");
  if (location === undefined || !URL.canParse(location, from.href))
    throw new RegistryFailure("invalid", "redirected to a malformed address");
  const target = new URL(location, from.href);
  target.username = "";
  target.password = "";
  const isInsecure = network.insecureHosts.includes(target.host) || target.origin === from.origin;
  const isAllowed = target.protocol === "https:" || (target.protocol === "http:" && isInsecure);
  if (!isAllowed) throw new RegistryFailure("invalid", `redirected to "${target.host}" without TLS`);
  return target;
}

/** Sends a GET and follows its redirects; what is secret is shown to the registry's own origin and nobody else. */
async function follow(
  parts: SessionParts,
  url: URL,
  headers: Readonly<Record<string, string>>,
  sending: { readonly secret: string | undefined; readonly signal: AbortSignal },
): Promise<Exchange> {
  let target = url;
  for (let hop = 0; hop <= maxRedirects; hop += 1) {
    const isOwnOrigin = target.origin === url.origin;
    const secret = sending.secret === undefined ? {} : { authorization: sending.secret };
    const sent = isOwnOrigin ? { ...parts.endpoint.headers, ...headers, ...secret } : headers;
    const response = await parts.http.request(target, { headers: sent }, sending.signal);
    if (!redirectStatuses.has(response.status)) return { response, isOwnOrigin };
    discard(response);
    target = redirectTarget(response, target, parts);
  }
  throw new RegistryFailure("invalid", `redirected more than ${maxRedirects} times`);
}

function discard(response: HttpResponse): void {
  response.body.on("error", () => undefined).destroy();
}

/** The header that proves us to the registry, learned from its challenge. */
interface Authorization {
  current(): string | undefined;
  /** Learns what the registry at `origin` asks for; true if there is something new to try. */
  answer(response: HttpResponse, origin: string, signal: AbortSignal): Promise<boolean>;
}

function createAuthorization(parts: SessionParts): Authorization {
  const { endpoint, http, tokens, network, limits } = parts;
  const { credentials } = endpoint;
  const ownScope = `repository:${endpoint.repository}:pull`;
  const tokenKey = [endpoint.address, ownScope, credentialsFingerprint(credentials)].join(" ");
  let basic: string | undefined;

  function current(): string | undefined {
    if (credentials?.kind === "registry") return `Bearer ${credentials.registryToken}`;
    const token = tokens.get(tokenKey);
    return token === undefined ? basic : `Bearer ${token.value}`;
  }
  return {
    current,
    async answer(response, origin, signal) {
      if (credentials?.kind === "registry") return false;
      const before = current();
      const challenges = parseChallenges(headerOf(response, "www-authenticate") ?? "");
      const challenge = challenges.find(({ scheme }) => scheme === "bearer");
      if (challenge !== undefined) {
        const asked = challenge.parameters["scope"] ?? "";
        const scope = pullScope.test(asked) ? asked : ownScope;
        const isProven = origin.startsWith("https:") && endpoint.tls.isVerified;
        const request = { challenge, scope, origin, isProven, credentials, network, maxBytes: limits.tokenBytes };
        tokens.set(tokenKey, await requestToken(http, request, signal));
      } else if (challenges.some(({ scheme }) => scheme === "basic") && credentials?.kind === "basic")
        basic = basicAuthorization(credentials);
      return current() !== before;
    },
  };
}

export function createSession(parts: SessionParts): RegistrySession {
  const authorization = createAuthorization(parts);
  let { endpoint } = parts;

  async function sendOver(
    scheme: "https" | "http",
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<OwnExchange> {
    const { address, apiPath, repository, query } = endpoint;
    const whole = path.startsWith("/") ? path : `${apiPath}/${repository}/${path}`;
    const url = new URL(`${scheme}://${address}${whole}${query}`);
    const secret = authorization.current();
    return { ...(await follow(parts, url, headers, { secret, signal })), origin: url.origin };
  }

  /** The first request finds out which of the schemes the host speaks. */
  async function send(
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<OwnExchange> {
    let failure: unknown;
    for (const scheme of endpoint.schemes) {
      try {
        const exchange = await sendOver(scheme, path, headers, signal);
        endpoint = { ...endpoint, schemes: [scheme] };
        return exchange;
      } catch (thrown) {
        if (!(thrown instanceof RegistryFailure)) throw thrown;
        failure = thrown;
      }
    }
    throw failure;
  }
  return {
    get endpoint() {
      return endpoint;
    },
    async get(path, headers, signal) {
      let exchange = await send(path, headers, signal);
      const { response, origin, isOwnOrigin } = exchange;
      const isChallenge = response.status === 401 && isOwnOrigin;
      if (isChallenge && (await authorization.answer(response, origin, signal))) {
        discard(response);
        exchange = await send(path, headers, signal);
      }
      const { status } = exchange.response;
      if (status === 200 || status === 206) return exchange.response;
      throw await statusFailure(exchange);
    },
  };
}
