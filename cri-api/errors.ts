/** gRPC status numbers by name: https://github.com/grpc/grpc/blob/v1.80.0/doc/statuscodes.md */
export const Code = {
  Ok: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

/** A failure the CRI caller can act on; `code` is the gRPC status it becomes on the wire. */
export class CriError extends Error {
  override readonly name = "CriError";
  readonly code: Code;
  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const codeByName: Readonly<Partial<Record<string, Code>>> = {
  AbortError: Code.Canceled,
  TimeoutError: Code.DeadlineExceeded,
};

/** What the machine refused, by the name of its errno: what is scarce may be there later, what is in the way will not go. */
const codeByErrno: Readonly<Partial<Record<string, Code>>> = {
  ENOSPC: Code.ResourceExhausted,
  EDQUOT: Code.ResourceExhausted,
  EMFILE: Code.ResourceExhausted,
  ENFILE: Code.ResourceExhausted,
  ENOMEM: Code.ResourceExhausted,
  EAGAIN: Code.ResourceExhausted, // of fork and pthread_create
  EROFS: Code.FailedPrecondition,
};

/** The name of the errno that a system call failed with, such as `"ENOENT"`; undefined for any other failure. */
export function errnoOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
}

/** Maps anything thrown to one wire error. A failed undo must not hide why the call failed. */
export function toCriError(thrown: unknown): CriError {
  if (thrown instanceof SuppressedError) return toCriError(thrown.suppressed);
  if (thrown instanceof CriError) return thrown;
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  // Node puts a signal's reason here; a deadline would else be told as a cancellation.
  if (error.name === "AbortError" && error.cause) return toCriError(error.cause);
  const code = codeByName[error.name] ?? codeByErrno[errnoOf(error) ?? ""] ?? Code.Internal;
  return new CriError(code, error.message, { cause: thrown });
}
