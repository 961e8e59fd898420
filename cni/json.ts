import * as v from "valibot";
import { toOneLine } from "./text.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/** @throws {Error} with a text for the operator unless the bytes are one JSON object in UTF-8. */
export function parseJsonObject(bytes: Uint8Array): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (thrown) {
    const reason = thrown instanceof SyntaxError ? thrown.message : "not UTF-8";
    throw new Error(`not valid JSON: ${toOneLine(reason)}`, { cause: thrown });
  }
  if (!isJsonObject(parsed)) throw new Error("not a JSON object");
  return parsed;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `plugins.0.type: must be a plain file name; name: must be a string` */
export function describeIssues(issues: readonly v.BaseIssue<unknown>[], path: string): string {
  return issues.map((issue) => describeIssue(issue, path)).join("; ");
}

function describeIssue(issue: v.BaseIssue<unknown>, path: string): string {
  const keys = [path, v.getDotPath(issue) ?? ""].filter((part) => part !== "");
  const text = issue.received === "undefined" ? "is missing" : toOneLine(issue.message);
  return keys.length === 0 ? text : `${keys.join(".")}: ${text}`;
}
