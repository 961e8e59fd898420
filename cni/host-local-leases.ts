import { readdir, rm, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { uptime } from "node:os";
import { join } from "node:path";
import type { JsonObject } from "./json.ts";
import type { Network } from "./network-list.ts";

const defaultDataDir = "/var/lib/cni/networks";

/**
 * Gives back the addresses that a power cut has taken from host-local: it makes a file per address and then writes into
 * it whose that is, but syncs neither, so after the cut the file may be there and empty. No DEL finds it as its own and
 * nobody ever gets the address again. Files from this boot are left alone: another runtime may be writing one.
 *
 * @param bootedAtMs In ms since 1970.
 * @returns The addresses.
 * @see https://www.cni.dev/plugins/current/ipam/host-local/#files
 */
export async function removeEmptyLeases(
  network: Pick<Network, "name" | "plugins">,
  bootedAtMs = Date.now() - uptime() * 1000,
): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const dataDir of new Set(network.plugins.flatMap(({ fields }) => dataDirsOf(fields)))) {
    const directory = join(dataDir, network.name);
    const names = await readdir(directory).catch(() => []); // no pod had an address yet
    for (const name of names.filter((file) => isIP(file) !== 0)) {
      const path = join(directory, name);
      const status = await stat(path).catch(() => undefined);
      if (!status?.isFile() || status.size > 0 || status.mtimeMs >= bootedAtMs) continue;
      await rm(path, { force: true });
      removed.push(name);
    }
  }
  return removed;
}

function dataDirsOf({ ipam }: JsonObject): readonly string[] {
  if (typeof ipam !== "object" || ipam === null || !("type" in ipam) || ipam.type !== "host-local") return [];
  return ["dataDir" in ipam && typeof ipam.dataDir === "string" && ipam.dataDir !== "" ? ipam.dataDir : defaultDataDir];
}
