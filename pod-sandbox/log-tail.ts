import { constants } from "node:fs";
import { open } from "node:fs/promises";

const maxTailBytes = 16 * 1024;
const maxLines = 5;
const maxMessageBytes = 2048;

/**
 * The last lines that a container wrote to stderr: at most 5, at most 2 KiB, from the end of its log in the CRI format.
 * "" where there is no log.
 */
export async function readLastErrors(logPath: string): Promise<string> {
  if (logPath === "") return "";
  await using file = await open(logPath, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = await file.stat();
  if (!status.isFile()) return "";
  const start = Math.max(0, status.size - maxTailBytes);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(maxTailBytes), 0, maxTailBytes, start);
  const text = buffer.toString("utf8", 0, bytesRead);
  return lastErrors(start === 0 ? text : text.slice(text.indexOf("\n") + 1));
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
