import { invalid } from "./invalid.ts";
import { assertNoControlCharacters } from "./text.ts";

/** The image's own files, as far as they are there; both are hostile. */
export interface AccountFiles {
  readonly passwd: Buffer | undefined;
  readonly group: Buffer | undefined;
}

export interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

const maxFileBytes = 4 * 1024 * 1024;
const maxLineBytes = 1024 * 1024;

/** The first entry that fits. Lines that are no entries are passed over, as libc does. */
export function findPasswd(
  file: Buffer | undefined,
  isWanted: (entry: PasswdEntry) => boolean,
): PasswdEntry | undefined {
  for (const line of linesOf(file, "/etc/passwd")) {
    const [name = "", , uid, gid, , home = ""] = line.split(":");
    const entry = { name, uid: parseId(uid), gid: parseId(gid), home };
    if (name !== "" && isId(entry.uid) && isId(entry.gid) && isWanted(entry)) return entry;
  }
  return undefined;
}

/** The gid of the first group of that name. */
export function findGroup(file: Buffer | undefined, name: string): number | undefined {
  for (const line of linesOf(file, "/etc/group")) {
    const [candidate, , gid] = line.split(":", 3);
    const id = parseId(gid);
    if (candidate === name && isId(id)) return id;
  }
  return undefined;
}

/** Gids up to `maxId` of the groups that list the user as a member. */
export function groupsOfMember(file: Buffer | undefined, username: string, maxId: number): readonly number[] {
  const gids = new Set<number>();
  for (const line of linesOf(file, "/etc/group")) {
    const [name, , gid, members = ""] = line.split(":");
    const id = parseId(gid);
    if (name !== "" && isId(id) && id <= maxId && members.split(",").includes(username)) gids.add(id);
  }
  return [...gids];
}

/** New contents for the account files that lack the container's user; an absent key needs no change. */
export interface MissingAccounts {
  readonly passwd?: Buffer;
  readonly group?: Buffer;
}

/**
 * Programs that ask for their own name fail on a uid that the image does not know. Gives copies of the image's files
 * with a line each for the uid and gid, named by their numbers. The caller writes and bind-mounts them.
 *
 * @throws {CriError} `InvalidArgument` where `home` could add a field or a line.
 */
export function missingAccounts(
  files: AccountFiles,
  user: { readonly uid: number; readonly gid: number },
  home: string,
): MissingAccounts {
  assertNoControlCharacters("home directory", home);
  if (home.includes(":")) throw invalid('home directory contains ":"');
  const { uid, gid } = user;
  const knowsUser = findPasswd(files.passwd, (entry) => entry.uid === uid) !== undefined;
  const passwdLine = `${uid}:x:${uid}:${gid}:container user:${home}:/sbin/nologin\n`;
  return {
    ...(files.passwd && !knowsUser ? { passwd: withLine(files.passwd, passwdLine) } : {}),
    ...(files.group && !hasGroup(files.group, gid) ? { group: withLine(files.group, `${gid}:x:${gid}:\n`) } : {}),
  };
}

function hasGroup(file: Buffer, gid: number): boolean {
  for (const line of linesOf(file, "/etc/group")) if (parseId(line.split(":", 3)[2]) === gid) return true;
  return false;
}

function withLine(file: Buffer, line: string): Buffer {
  const hasNewline = file.length === 0 || file.at(-1) === 0x0a;
  return Buffer.concat([file, Buffer.from(hasNewline ? line : `\n${line}`)]);
}

function* linesOf(file: Buffer | undefined, path: string): Generator<string> {
  if (!file) return;
  if (file.length > maxFileBytes) throw invalid(`${path} of the image is larger than ${maxFileBytes} bytes`);
  let start = 0;
  while (start < file.length) {
    const newline = file.indexOf(0x0a, start);
    const end = newline === -1 ? file.length : newline;
    if (end - start <= maxLineBytes) yield file.toString("utf8", start, end).trim();
    start = end + 1;
  }
}

// NaN for anything that is not a plain number: `+`, `-`, `0x` and the NIS lines of old.
function parseId(text: string | undefined): number {
  return text !== undefined && /^[0-9]{1,10}$/.test(text) ? Number(text) : Number.NaN;
}

function isId(id: number): boolean {
  return !Number.isNaN(id);
}
