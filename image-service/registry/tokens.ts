/** A bearer token and when it stops being used. */
export interface Token {
  readonly value: string;
  readonly expiresAtMs: number;
}

/** Tokens by host, scope and credentials. Workers come and go, so the main thread keeps the lasting copy. */
export interface TokenCache {
  get(key: string): Token | undefined;
  set(key: string, token: Token): void;
  entries(): readonly (readonly [string, Token])[];
}

const maxTokens = 256;
/** A token this close to its end would die on the way. */
const marginMs = 5000;

export function createTokenCache(
  known: readonly (readonly [string, Token])[] = [],
  onLearned?: (key: string, token: Token) => void,
): TokenCache {
  const tokens = new Map(known);
  const isUsable = (token: Token): boolean => token.expiresAtMs - marginMs > Date.now();
  return {
    get(key) {
      const token = tokens.get(key);
      return token !== undefined && isUsable(token) ? token : undefined;
    },
    set(key, token) {
      tokens.delete(key);
      tokens.set(key, token);
      for (const oldest of tokens.keys()) {
        if (tokens.size <= maxTokens) break;
        tokens.delete(oldest);
      }
      onLearned?.(key, token);
    },
    entries: () => [...tokens].filter(([, token]) => isUsable(token)),
  };
}
