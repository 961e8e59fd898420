/** What lies at a path in parsed JSON; undefined where the path ends early. */
export function at(json: unknown, ...path: readonly string[]): unknown {
  let value = json;
  for (const key of path) {
    value = typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
  }
  return value;
}

/** The array at a path in parsed JSON; empty where there is none. */
export function listAt(json: unknown, ...path: readonly string[]): readonly unknown[] {
  const value = at(json, ...path);
  return Array.isArray(value) ? value : [];
}
