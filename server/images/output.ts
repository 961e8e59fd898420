import { once } from "node:events";
import type { Writable } from "node:stream";

/** Where a command writes. */
export interface Terminal {
  readonly out: Writable;
  /** Progress and errors. */
  readonly err: Writable & { readonly isTTY?: boolean; readonly columns?: number };
}

const units = ["B", "kB", "MB", "GB", "TB"];

/** `192.3 MB`, by powers of a thousand. */
export function formatBytes(bytes: bigint | number): string {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Left-aligned columns, two spaces between them. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  return lines.map((line) => `${line.trimEnd()}\n`).join("");
}

/** One value as JSON; 64-bit numbers are numbers, as all of them are sizes, counts and times. */
export function formatJson(value: unknown, indent = 0): string {
  return `${JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? Number(item) : item), indent)}\n`;
}

/** Writes and waits where the reader is slow. */
export async function write(stream: Writable, text: string | Uint8Array): Promise<void> {
  if (!stream.write(text)) await once(stream, "drain");
}
