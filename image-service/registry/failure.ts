import { Code, CriError } from "../../cri-api/index.ts";

/** What became of one request to one host. */
export type Outcome =
  | "unreachable"
  | "broken"
  | "unauthorized"
  | "denied"
  | "absent"
  | "throttled"
  | "server-error"
  | "unexpected"
  | "invalid"
  | "unsupported";

const codes = {
  unreachable: Code.Unknown, // kubelet looks for its reason words only under Unknown
  broken: Code.Unavailable,
  unauthorized: Code.Unauthenticated,
  denied: Code.PermissionDenied,
  absent: Code.NotFound,
  throttled: Code.ResourceExhausted,
  "server-error": Code.Unavailable,
  unexpected: Code.Unavailable,
  invalid: Code.DataLoss,
  unsupported: Code.FailedPrecondition,
} as const satisfies Record<Outcome, Code>;

const retriable: ReadonlySet<Outcome> = new Set(["broken", "throttled", "server-error"]);

/** A registry's answer, or its absence, that ends a request. */
export class RegistryFailure extends Error {
  override readonly name = "RegistryFailure";
  readonly outcome: Outcome;
  /** The registry's own wish (Retry-After), if it sent one. */
  readonly retryAfterMs: number | undefined;

  constructor(outcome: Outcome, message: string, options?: ErrorOptions & { retryAfterMs?: number | undefined }) {
    super(message, options);
    this.outcome = outcome;
    this.retryAfterMs = options?.retryAfterMs;
  }

  get isRetriable(): boolean {
    return retriable.has(this.outcome);
  }
}

/** One host that was asked in vain. */
export interface Attempt {
  readonly host: string;
  readonly isMirror: boolean;
  readonly failure: RegistryFailure;
}

/** The error of a pull that no host could satisfy: the last host decides its code, the text names all of them. */
export function failedAttempts(what: string, attempts: readonly Attempt[]): CriError {
  const last = attempts.at(-1);
  if (last === undefined) return new CriError(Code.Internal, `${what}: no registry to ask`);
  const outcomes = attempts.map(
    ({ host, isMirror, failure }) => `${isMirror ? "mirror" : "host"} "${host}": ${failure.message}`,
  );
  const prefix = last.failure.outcome === "unreachable" ? "RegistryUnavailable: " : "";
  return new CriError(codes[last.failure.outcome], `${prefix}${what}: ${outcomes.join("; ")}`, {
    cause: last.failure,
  });
}
