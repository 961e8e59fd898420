import { readFile } from "node:fs/promises";

/** One line of /proc/self/mountinfo. */
export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor` of the file system. */
  readonly device: string;
  /** The part of the file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly fsType: string;
  readonly source: string;
  /** Of the mount, such as `ro` or `nosuid`. */
  readonly options: readonly string[];
  /** Of the file system, such as `lowerdir=…`. */
  readonly superOptions: readonly string[];
  /** Peer group, if shared. */
  readonly shared: number | undefined;
  /** Peer group it receives from, if a slave. */
  readonly master: number | undefined;
}

/** The kernel writes space, tab, newline, backslash and `#` as three octal digits. */
function unescape(text: string): string {
  return text.includes("\\")
    ? text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
    : text;
}

function readTag(tags: readonly string[], name: string): number | undefined {
  const tag = tags.find((candidate) => candidate.startsWith(`${name}:`));
  return tag === undefined ? undefined : Number(tag.slice(name.length + 1));
}

function parseLine(line: string): MountEntry | undefined {
  const fields = line.split(" ");
  const dash = fields.indexOf("-", 6);
  const [id, parentId, device, root, mountPoint, options] = fields;
  const [fsType, source, superOptions] = fields.slice(dash + 1);
  if (dash < 0 || options === undefined || superOptions === undefined) return undefined;
  const tags = fields.slice(6, dash);
  return {
    id: Number(id),
    parentId: Number(parentId),
    device: device ?? "",
    root: unescape(root ?? ""),
    mountPoint: unescape(mountPoint ?? ""),
    fsType: fsType ?? "",
    source: unescape(source ?? ""),
    options: options.split(","),
    superOptions: superOptions.split(","),
    shared: readTag(tags, "shared"),
    master: readTag(tags, "master"),
  };
}

/** Parses the text of a mountinfo file; lines it does not understand are left out. */
export function parseMountTable(text: string): readonly MountEntry[] {
  return text.split("\n").flatMap((line) => parseLine(line) ?? []);
}

/**
 * The mounts this process sees, in the order they stack.
 * @see https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
 */
export async function readMountTable(): Promise<readonly MountEntry[]> {
  return parseMountTable(await readFile("/proc/self/mountinfo", "utf8"));
}
