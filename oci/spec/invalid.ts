import { Code, CriError } from "../../cri-api/index.ts";

/** The caller's mistake, in words that name it. */
export function invalid(message: string, options?: ErrorOptions): CriError {
  return new CriError(Code.InvalidArgument, message, options);
}

const maxQuotedLength = 200;

/** Quotes text from outside so that an error message stays one short line. */
export function quote(text: string): string {
  const shown = text.length > maxQuotedLength ? `${text.slice(0, maxQuotedLength)}…` : text;
  return JSON.stringify(shown).replace(
    /[\u007f-\u009f\u2028\u2029]/g, // JSON leaves these line ends and terminal controls as they are
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
