import { join } from "node:path";
import { readFileBounded } from "../native/index.ts";
import type { Spec } from "../oci/index.ts";

const maxSpecBytes = 16 * 1024 * 1024;

/** The config.json that this daemon, or the one before, wrote for the runtime; undefined when a reboot has taken it. */
export async function readSpec(bundle: string): Promise<Spec | undefined> {
  const text = await readFileBounded(join(bundle, "config.json"), maxSpecBytes);
  return text && (JSON.parse(text.toString("utf8")) as Spec); // our own file in a directory only root can write
}
