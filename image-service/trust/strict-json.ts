const tokens = /"(?:[^"\\]|\\.)*"|[{}[\]:,]/g;

/** Duplicate members of one object, of which a plain parse keeps the last: two readers could see two documents. */
function duplicateMember(json: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  let last = "";
  for (const [token] of json.matchAll(tokens)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(undefined);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const name = JSON.parse(last) as string;
      const members = open.at(-1);
      if (members?.has(name)) return name;
      members?.add(name);
    }
    last = token;
  }
  return undefined;
}

/**
 * Parses a document that trust depends on: UTF-8, JSON, and no object with the same member twice.
 *
 * @throws {Error} saying which of these it is not.
 */
export function parseStrictJson(bytes: Uint8Array): unknown {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (thrown) {
    throw new Error("it is not JSON in UTF-8", { cause: thrown });
  }
  const twice = duplicateMember(text);
  if (twice !== undefined) throw new Error(`it has ${JSON.stringify(twice.slice(0, 64))} twice`);
  return value;
}
