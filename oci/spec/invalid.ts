import { Code, CriError } from "../../cri-api/index.ts";

/** The caller's mistake, in words that name it. */
export function invalid(message: string, options?: ErrorOptions): CriError {
  return new CriError(Code.InvalidArgument, message, options);
}

/** Quotes text from outside so that an error message stays one short line. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}
