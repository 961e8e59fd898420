import { readFileBounded, removeTree } from "../native/index.ts";
import { configPathOf, type Spec } from "../oci/index.ts";
import { exists } from "./layout.ts";

const maxSpecBytes = 16 * 1024 * 1024;

/** The config.json that this daemon, or the one before, wrote for the runtime; undefined when a reboot has taken it. */
export async function readSpec(bundle: string): Promise<Spec | undefined> {
  const text = await readFileBounded(configPathOf(bundle), maxSpecBytes);
  return text && (JSON.parse(text.toString("utf8")) as Spec); // our own file in a directory only root can write
}

/** Removes a bundle, or the folder that it lies in, but not as long as it is a container's: the next delete needs it. */
export async function removeBundle(bundle: string, folder = bundle): Promise<void> {
  if (!(await exists(configPathOf(bundle)))) await removeTree(folder);
}
