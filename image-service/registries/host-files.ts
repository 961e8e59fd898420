import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

import type { ImageHost } from "../host.ts";
import { checkCertificates, checkPair, type Certificates } from "./certificates.ts";
import { FileIssue } from "./file-issue.ts";
import { type HostEntry, hostDirectories, parseHostsToml } from "./hosts-toml.ts";
import { parseFile, type ReadFile } from "./reloading.ts";

/** What a `hosts.toml` says of a registry, with the certificates it names. */
export interface HostFile {
  /** False: no file says anything of it. */
  readonly isForRegistry: boolean;
  /** Those that images can be pulled from, in the order in which they are asked. */
  readonly hosts: readonly (HostEntry & { readonly certificates: Certificates; readonly isServer: boolean })[];
}

const maxFileBytes = 1 << 20;

async function isDirectory(path: string): Promise<boolean> {
  return await stat(path).then(
    (status) => status.isDirectory(),
    () => false,
  );
}

function namedIn(entries: readonly HostEntry[]): readonly string[] {
  const paths = entries.flatMap(({ authorityFiles, clientFiles }) => [
    ...authorityFiles,
    ...clientFiles.flatMap(({ certificate, key }) => [certificate, key]),
  ]);
  return [...new Set(paths)];
}

/**
 * The `hosts.toml` for a registry, from the first folder that is for it, and the certificates it names.
 *
 * @throws {FileIssue} if the file cannot be used.
 */
export async function hostFilePaths(
  root: string | undefined,
  registry: string,
  host: Pick<ImageHost, "readFileBounded">,
): Promise<readonly string[]> {
  if (root === undefined) return [];
  const names = await readdir(root).catch((): string[] => []);
  for (const name of hostDirectories(names.sort(), registry)) {
    const directory = join(root, name);
    if (!(await isDirectory(directory))) continue;
    const path = join(directory, "hosts.toml");
    const bytes = await host.readFileBounded(path, maxFileBytes);
    if (bytes === undefined) return [];
    const file = { path, text: bytes.toString("utf8") };
    return [path, ...namedIn(parseFile(file, (text) => parseHostsToml(text, path)))];
  }
  return [];
}

/** @throws {FileIssue} for a file that cannot be used, and one that is named and absent. */
export function parseHostFiles(files: readonly ReadFile[]): HostFile {
  const [file, ...others] = files;
  if (file === undefined || file.text.trim() === "") return { hosts: [], isForRegistry: false };
  const entries = parseFile(file, (text) => parseHostsToml(text, file.path));
  const find = (path: string): ReadFile => {
    const found = others.find((other) => other.path === path);
    if (found === undefined) throw new FileIssue(`${file.path}: names ${path}, which is not there`);
    return found;
  };
  return {
    hosts: entries.flatMap((entry, index) =>
      entry.canPull
        ? [
            {
              ...entry,
              isServer: index === entries.length - 1,
              certificates: {
                authorities: entry.authorityFiles.map((path) => checkCertificates(find(path))),
                clientCertificates: entry.clientFiles.map(({ certificate, key }) =>
                  checkPair(find(certificate), find(key)),
                ),
              },
            },
          ]
        : [],
    ),
    isForRegistry: true,
  };
}
