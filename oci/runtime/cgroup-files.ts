import { readFilesBounded } from "../../native/index.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";

/** Files of one controller: `legacy` ones in its v1 hierarchy where it has one, else `unified` ones in the v2 hierarchy. */
export interface ControllerFiles {
  readonly controller: string;
  readonly legacy: readonly string[];
  readonly unified: readonly string[];
}

/** What a file holds; "" for one that is not there. */
export type TextOf = (file: string) => string;

/** A crowd's cgroup.procs and a large memory.stat fit. */
const maxFileBytes = 64 * 1024;
/** So many cgroups are read by one thread in about two milliseconds. */
const groupsPerRead = 64;

/** Reads the same files of many cgroups, on threads of the addon; the answers in the order of `groups`. */
export async function readCgroupFiles(
  groups: readonly CgroupPaths[],
  wanted: readonly ControllerFiles[],
): Promise<readonly TextOf[]> {
  const parts: Promise<readonly TextOf[]>[] = [];
  for (let start = 0; start < groups.length; start += groupsPerRead) {
    parts.push(readPart(groups.slice(start, start + groupsPerRead), wanted));
  }
  return (await Promise.all(parts)).flat();
}

async function readPart(
  groups: readonly CgroupPaths[],
  wanted: readonly ControllerFiles[],
): Promise<readonly TextOf[]> {
  const named = groups.map((group) => wanted.flatMap((files) => placesOf(group, files)));
  const paths = named.flatMap((places) => places.map(({ path }) => path));
  const contents = await readFilesBounded(paths, maxFileBytes);
  let next = 0;
  return named.map((places) => {
    const texts = new Map(places.map(({ file }) => [file, contents[next++]?.toString("latin1") ?? ""]));
    return (file) => texts.get(file) ?? "";
  });
}

function placesOf(
  group: CgroupPaths,
  { controller, legacy, unified }: ControllerFiles,
): readonly { readonly file: string; readonly path: string }[] {
  const own = group.controllers[controller];
  const directory = own ?? group.unified;
  if (directory === undefined) return [];
  return (own === undefined ? unified : legacy).map((file) => ({ file, path: `${directory}/${file}` }));
}

/** A file that is one number. */
export function countIn(text: string): bigint | undefined {
  const digits = text.trim();
  return /^\d{1,20}$/.test(digits) ? BigInt(digits) : undefined;
}

/** The number behind a name in a file of `name value` lines; those have some forty, of which a few are wanted. */
export function countOf(text: string, name: string): bigint | undefined {
  const start = text.startsWith(`${name} `) ? 0 : text.indexOf(`\n${name} `) + 1;
  if (start === 0 && !text.startsWith(`${name} `)) return undefined;
  const end = text.indexOf("\n", start);
  return countIn(text.slice(start + name.length + 1, end < 0 ? undefined : end));
}
