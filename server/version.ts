import { readFile } from "node:fs/promises";

/** The version in package.json, the one place that holds it. */
export async function readVersion(): Promise<string> {
  const parsed: unknown = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));
  if (typeof parsed === "object" && parsed !== null && "version" in parsed && typeof parsed.version === "string") {
    return parsed.version;
  }
  throw new Error("package.json holds no version");
}
