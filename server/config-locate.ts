import { parse } from "smol-toml";

type Path = readonly (string | number)[];

/** Keys as TOML writes them, such as `registries."registry.k8s.io".mirrors[0]`. */
export function renderKeyPath(path: Path): string {
  return path
    .map((key, index) => {
      if (typeof key === "number") return `[${key}]`;
      const written = /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key);
      return index === 0 ? written : `.${written}`;
    })
    .join("");
}

/** The keys a lone header or assignment leads to: the parser itself knows how quotes and dots work. */
function keysOf(toml: string): string[] | undefined {
  const keys: string[] = [];
  try {
    let value: unknown = parse(toml);
    while (typeof value === "object" && value !== null && !(value instanceof Date)) {
      const [entry] = Object.entries(Array.isArray(value) ? (value[0] ?? {}) : value);
      if (entry === undefined) break;
      keys.push(entry[0]);
      value = entry[1];
    }
    return keys;
  } catch {
    return undefined; // a line in the middle of a longer value
  }
}

/**
 * The line (from 1) that sets the key, or the nearest table above it; undefined where neither is written. Good enough
 * to point an operator at the place: a multi-line string that looks like TOML can mislead it.
 */
export function locateKey(source: string, path: Path): number | undefined {
  const wanted = path.filter((key) => typeof key === "string");
  let table: readonly string[] = [];
  let best: { line: number; depth: number } | undefined;
  for (const [index, raw] of source.split("\n").entries()) {
    const line = raw.trim();
    const isHeader = line.startsWith("[");
    const keys = isHeader ? keysOf(line) : keysOf(`${/^(?:"[^"]*"|'[^']*'|[^=#"'])+=/.exec(line)?.[0] ?? "?"}0`);
    if (keys === undefined) continue;
    if (isHeader) table = keys;
    const here = isHeader ? keys : [...table, ...keys];
    const depth = Math.min(here.length, wanted.length);
    const matches = here.slice(0, depth).every((key, at) => key === wanted[at]);
    if (matches && depth > (best?.depth ?? 0)) best = { line: index + 1, depth };
  }
  return best?.line;
}
