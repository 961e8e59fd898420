/** One challenge of a WWW-Authenticate header; parameter names are lower-case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const maxHeaderLength = 8192;
const tokenPattern = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const quotedPattern = /"((?:[^"\\]|\\.)*)"/y;
const separatorPattern = /[\s,]*/y;

/** Walks the header once; every step consumes or stops, so hostile input costs linear time. */
function createScanner(text: string): {
  take(pattern: RegExp): string | undefined;
  peek(): string;
} {
  let position = 0;
  return {
    take(pattern) {
      pattern.lastIndex = position;
      const match = pattern.exec(text);
      if (match === null) return undefined;
      position = pattern.lastIndex;
      return match[1] ?? match[0];
    },
    peek: () => text.slice(position).trimStart().slice(0, 1),
  };
}

/**
 * Parses `WWW-Authenticate`, several challenges included. Anything malformed ends the parse; what was read until then
 * is returned.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 */
export function parseChallenges(header: string): readonly Challenge[] {
  const scanner = createScanner(header.slice(0, maxHeaderLength));
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  for (;;) {
    scanner.take(separatorPattern);
    const word = scanner.take(tokenPattern);
    if (word === undefined) return challenges;
    if (scanner.peek() !== "=") {
      challenges.push({ scheme: word.toLowerCase(), parameters: Object.create(null) as Record<string, string> });
      continue;
    }
    scanner.take(/\s*=\s*/y);
    const value = scanner.peek() === '"' ? scanner.take(quotedPattern) : scanner.take(tokenPattern);
    const current = challenges.at(-1);
    if (value === undefined || current === undefined) return challenges;
    current.parameters[word.toLowerCase()] ??= value.replace(/\\(.)/g, "$1");
  }
}
