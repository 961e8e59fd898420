// oxlint-disable no-control-regex -- control characters are what this file is about

/** Words of somebody else, made fit for a log line or an error: one line, no control characters, bounded. */
export function toOneLine(words: string, maxLength = 1024): string {
  const line = words.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, " ").trim();
  return line.length <= maxLength ? line : `${line.slice(0, maxLength)}…`;
}

export function hasControlCharacter(text: string): boolean {
  return /[\u0000-\u001f\u007f]/.test(text);
}
