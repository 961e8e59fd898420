import { join } from "node:path";

/** What a container was made from. It is in the bundle as long as anything of the container may be there. */
export function configPathOf(bundle: string): string {
  return join(bundle, "config.json");
}
