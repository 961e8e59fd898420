/** `fail`: no pod will run. `warn`: something will be missing. */
export type Level = "ok" | "warn" | "fail";

/** One thing looked at, and what to do about it. */
export interface Finding {
  readonly level: Level;
  readonly subject: string;
  readonly text: string;
  readonly cure?: string;
}

const marks: Readonly<Record<Level, string>> = { ok: "ok  ", warn: "warn", fail: "FAIL" };

/** One line per finding, and its cure below it; then how many there were. */
export function renderFindings(findings: readonly Finding[]): string {
  const lines = findings.flatMap(({ level, subject, text, cure }) => [
    `${marks[level]}  ${subject}: ${text}`,
    ...(cure === undefined ? [] : cure.split("\n").map((line) => `      ${line}`)),
  ]);
  const count = (level: Level): number => findings.filter((finding) => finding.level === level).length;
  return `${[...lines, `${count("ok")} ok, ${count("warn")} warnings, ${count("fail")} failures`].join("\n")}\n`;
}
