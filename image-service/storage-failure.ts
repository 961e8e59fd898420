import { Code, CriError, toCriError } from "../cri-api/index.ts";
import { SyscallError } from "../native/index.ts";

/** What the caller of a pull hears when our own disk refused: `doing` is "unpacked" or "stored". */
export function storageFailure(thrown: unknown, what: string, doing: string): CriError {
  const code = errorCode(thrown);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new CriError(Code.ResourceExhausted, `${what}: no space left, it cannot be ${doing}`, { cause: thrown });
  }
  if (code !== "") return new CriError(Code.Internal, `${what}: cannot be ${doing} (${code})`, { cause: thrown });
  return toCriError(thrown);
}

function errorCode(thrown: unknown): string {
  if (thrown instanceof SyscallError) return thrown.code;
  return thrown instanceof Error && "syscall" in thrown && "code" in thrown ? String(thrown.code) : "";
}
