import { readFileBounded } from "../native/index.ts";
import { configPathOf, type Spec } from "../oci/index.ts";
import { exists } from "./layout.ts";

const maxSpecBytes = 16 * 1024 * 1024;

/** The config.json that this daemon, or the one before, wrote for the runtime; undefined when a reboot has taken it. */
export async function readSpec(bundle: string): Promise<Spec | undefined> {
  const text = await readFileBounded(configPathOf(bundle), maxSpecBytes);
  return text && (JSON.parse(text.toString("utf8")) as Spec); // our own file in a directory only root can write
}

/** Whether something of its container may be there yet, which the next delete could not find without the bundle. */
export async function isHeld(bundle: string): Promise<boolean> {
  return await exists(configPathOf(bundle));
}
