import { TomlError, parse } from "smol-toml";
import * as v from "valibot";

/** What is wrong with an operator's file, in words for him; never a part of a secret. */
export class FileIssue extends Error {
  override readonly name = "FileIssue";
}

/** Keys as TOML writes them: `registry[0].mirror[1].location`. */
function renderPath(issue: v.BaseIssue<unknown>): string {
  const keys = (issue.path ?? []).map(({ key }) => key);
  return keys
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("")
    .replace(/^\./, "");
}

/**
 * Holds a parsed document against its schema.
 *
 * @throws {FileIssue} that names the first key at fault.
 */
export function checkDocument<Schema extends v.GenericSchema>(
  schema: Schema,
  document: unknown,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, document);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = renderPath(issue);
  throw new FileIssue(`${path}${path === "" ? "" : ": "}${issue.message}`);
}

/** @throws {FileIssue} with the line at fault. */
export function parseToml(text: string): Record<string, unknown> {
  try {
    return parse(text, { unsafeKeyBehaviour: "throw", maxDepth: 32 });
  } catch (thrown) {
    if (!(thrown instanceof TomlError)) throw thrown;
    throw new FileIssue(`line ${thrown.line}: ${thrown.message.split("\n", 1)[0] ?? "not TOML"}`, { cause: thrown });
  }
}

/** The parser's own words may quote the document, which may hold secrets: they are dropped. @throws {FileIssue} */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new FileIssue("it is not JSON");
  }
}
