import { randomBytes } from "node:crypto";
import { Code, CriError } from "../../cri-api/index.ts";

const tokenBytes = 24; // 192 bits
const lifetimeMs = 60_000;
const maxWaiting = 1000;

/** Requests that wait for their client, each under a name that nobody can guess and that works once. */
export interface TokenStore<Value> {
  /** @throws {CriError} `ResourceExhausted` when 1000 requests wait. */
  issue(value: Value): string;
  /** The value, which is then forgotten, or undefined if the token is unknown, used or older than a minute. */
  redeem(token: string): Value | undefined;
}

/** @param now Milliseconds of a clock that only goes forward. */
export function createTokenStore<Value>(now: () => number = () => performance.now()): TokenStore<Value> {
  const waiting = new Map<string, { readonly value: Value; readonly expiresAtMs: number }>();

  const dropExpired = (): void => {
    for (const [token, entry] of waiting) {
      if (entry.expiresAtMs > now()) return; // in order of issue, so of expiry
      waiting.delete(token);
    }
  };

  return {
    issue(value) {
      dropExpired();
      if (waiting.size >= maxWaiting) {
        throw new CriError(Code.ResourceExhausted, "maximum number of in-flight requests exceeded");
      }
      const token = randomBytes(tokenBytes).toString("base64url");
      waiting.set(token, { value, expiresAtMs: now() + lifetimeMs });
      return token;
    },
    redeem(token) {
      dropExpired();
      const entry = waiting.get(token);
      waiting.delete(token);
      return entry?.value;
    },
  };
}
