import type { cri } from "../../cri-api/index.ts";
import { findGroup, findPasswd, groupsOfMember } from "./account-files.ts";
import type { AccountFiles, PasswdEntry } from "./account-files.ts";
import { invalid, quote } from "./invalid.ts";

/** Who a container's processes are. `additionalGids` always holds `gid` (CVE-2022-2995). */
export interface ResolvedUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  readonly home?: string;
  readonly username?: string;
}

/** Kubernetes and runc stop here too; past it, ids have overflowed to 0 elsewhere (CVE-2024-40635). */
export const maxId = 2 ** 31 - 1;
/** NGROUPS_MAX of the kernel. */
const maxGroups = 65_536;

type SecurityContext = Pick<
  cri.LinuxContainerSecurityContext,
  "runAsUser" | "runAsGroup" | "runAsUsername" | "supplementalGroups" | "supplementalGroupsPolicy"
>;

/**
 * Finds uid, gid and groups: the CRI's user beats the image's, `runAsGroup` beats the user's primary group, and under
 * `Merge` the image's /etc/group adds its memberships. All-digit strings are numbers and never names (CVE-2026-46680).
 *
 * @throws {CriError} `InvalidArgument` for an id out of range, an unknown name, or a group without a user.
 */
export function resolveUser(
  files: AccountFiles,
  securityContext: SecurityContext | null,
  imageUser: string,
): ResolvedUser {
  requireOneUser(securityContext);
  const asked = askedUser(securityContext, imageUser);
  const { uid, entry } = lookUpUser(files, asked.user);
  const group = securityContext?.runAsGroup;
  const gid = group ? toId("run_as_group", group.value) : lookUpGroup(files, asked.group, entry);
  const isMerge = securityContext?.supplementalGroupsPolicy !== "Strict";
  const memberships = isMerge && entry ? groupsOfMember(files.group, entry.name, maxId) : [];
  const requested = (securityContext?.supplementalGroups ?? []).map((id) => toId("supplemental group", id));
  const additionalGids = [...new Set([gid, ...memberships, ...requested])];
  if (additionalGids.length > maxGroups) throw invalid(`more than ${maxGroups} supplemental groups`);
  return { uid, gid, additionalGids, ...(entry ? { home: entry.home, username: entry.name } : {}) };
}

function requireOneUser(context: SecurityContext | null): void {
  if (!context) return;
  if (context.runAsUser && context.runAsUsername !== "") {
    throw invalid("run_as_user and run_as_username exclude each other");
  }
  if (context.runAsGroup && !context.runAsUser && context.runAsUsername === "") {
    throw invalid("run_as_group needs run_as_user or run_as_username");
  }
}

interface Asked {
  readonly user: number | string;
  readonly group: string | undefined;
}

function askedUser(context: SecurityContext | null, imageUser: string): Asked {
  if (context?.runAsUser) return { user: toId("run_as_user", context.runAsUser.value), group: undefined };
  const name = context?.runAsUsername ?? "";
  if (name !== "") {
    if (isNumber(name)) throw invalid(`run_as_username ${quote(name)} is a number: a number goes in run_as_user`);
    return { user: name, group: undefined };
  }
  const [user = "", group, ...rest] = imageUser.split(":");
  if (rest.length > 0) throw invalid(`user ${quote(imageUser)} of the image has more than one ":"`);
  return { user: user === "" ? 0 : idOrName("user of the image", user), group: group === "" ? undefined : group };
}

function lookUpUser(files: AccountFiles, user: number | string): { uid: number; entry: PasswdEntry | undefined } {
  if (typeof user === "number") {
    return { uid: user, entry: findPasswd(files.passwd, (candidate) => candidate.uid === user) };
  }
  const entry = findPasswd(files.passwd, (candidate) => candidate.name === user);
  if (!entry) throw invalid(`user ${quote(user)} is not in the image's /etc/passwd`);
  if (entry.uid > maxId || entry.gid > maxId) throw invalid(`user ${quote(user)} has an id above ${maxId}`);
  return { uid: entry.uid, entry };
}

function lookUpGroup(files: AccountFiles, group: string | undefined, entry: PasswdEntry | undefined): number {
  if (group === undefined) return checkRange("group of the user", entry?.gid ?? 0);
  const wanted = idOrName("group of the image", group);
  if (typeof wanted === "number") return wanted;
  const found = findGroup(files.group, wanted);
  if (found === undefined) throw invalid(`group ${quote(wanted)} is not in the image's /etc/group`);
  return checkRange(`group ${quote(wanted)}`, found);
}

function isNumber(text: string): boolean {
  return /^[0-9]+$/.test(text);
}

function idOrName(field: string, text: string): number | string {
  return isNumber(text) ? toId(field, BigInt(text.slice(0, 64))) : text;
}

/** @throws {CriError} `InvalidArgument` for a number that is no uid or gid. */
export function toId(field: string, value: bigint): number {
  if (value < 0n || value > BigInt(maxId)) throw invalid(`${field} ${value} is not between 0 and ${maxId}`);
  return Number(value);
}

function checkRange(field: string, id: number): number {
  return toId(field, BigInt(id));
}
