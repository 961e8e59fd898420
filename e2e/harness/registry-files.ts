import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "smol-toml";

/** A registry as `registries.conf` tells of it. */
export interface RegistryRule {
  readonly location: string;
  readonly insecure?: boolean;
  readonly mirror?: readonly { readonly location: string; readonly insecure?: boolean }[];
}

/** `registries.conf` for registries reached over plain HTTP, the first of which is the mirror of some hosts. */
export function rulesFor(insecure: readonly string[], mirroredHosts: readonly string[] = []): RegistryRule[] {
  const mirror = insecure.slice(0, 1).map((location) => ({ location, insecure: true }));
  return [
    ...insecure.map((location) => ({ location, insecure: true })),
    ...mirroredHosts.map((location) => ({ location, mirror })),
  ];
}

/**
 * Writes `registries.conf` into the folder, which is made, and returns the table of Berth's configuration that has it and
 * its like read from there, whatever this machine has.
 */
export async function writeRegistryFiles(
  directory: string,
  rules: readonly RegistryRule[],
): Promise<Record<string, string | string[]>> {
  await mkdir(directory, { recursive: true });
  const at = (name: string): string => path.join(directory, name);
  await writeFile(at("registries.conf"), stringify({ registry: rules }));
  return {
    conf_file: at("registries.conf"),
    conf_dir: at("registries.conf.d"),
    short_name_aliases_file: at("short-name-aliases.conf"),
    hosts_dir: at("hosts.d"),
    certs_dirs: [at("certs.d")],
    auth_file: at("auth.json"),
    namespaced_auth_dir: at("namespaced-auth"),
  };
}
