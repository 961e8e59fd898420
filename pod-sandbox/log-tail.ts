import { readForeignTail } from "../native/index.ts";

const maxTailBytes = 16 * 1024;
/** The log may lie on a file system that hangs. */
const readDeadlineMs = 5_000;
const maxLines = 5;
const maxMessageBytes = 2048;

/**
 * The last lines that a container wrote to stderr: at most 5, at most 2 KiB, from the end of its log in the CRI format.
 * "" where there is no log.
 */
export async function readLastErrors(logPath: string): Promise<string> {
  if (logPath === "") return "";
  // one byte more tells whether the first line is whole
  const bytes = await readForeignTail(logPath, { most: maxTailBytes + 1, deadlineMs: readDeadlineMs });
  const text = bytes.toString("utf8");
  return lastErrors(bytes.length > maxTailBytes ? text.slice(text.indexOf("\n") + 1) : text);
}

/** Entries are `TIME stdout|stderr F|P TEXT`; a P has no line end of its own. */
export function lastErrors(log: string): string {
  let errors = "";
  for (const line of log.split("\n")) {
    const [, tag, text = ""] = /^\S+ stderr ([FP])(?::\S*)? (.*)$/.exec(line) ?? [];
    if (tag !== undefined) errors += tag === "F" ? `${text}\n` : text;
  }
  const lines = errors.trimEnd().split("\n").slice(-maxLines).join("\n");
  return trimToBytes(lines, maxMessageBytes);
}

/** What is cut off is the beginning, and never half a character. */
function trimToBytes(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return text;
  return bytes
    .subarray(-maxBytes)
    .toString("utf8")
    .replace(/^\uFFFD+/u, "");
}
