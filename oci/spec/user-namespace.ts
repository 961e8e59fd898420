import type { cri } from "../../cri-api/index.ts";
import { invalid } from "./invalid.ts";
import type { ResolvedUser } from "./user.ts";

/** Ids from 0 to `length - 1` inside are those from `hostId` on outside. */
export interface IdRange {
  readonly hostId: number;
  readonly length: number;
}

/** The ids of a pod's user namespace. */
export interface IdMaps {
  readonly uids: IdRange;
  readonly gids: IdRange;
}

/** The id that is none, and so ends every range. */
const noId = 2 ** 32 - 1;

/**
 * The user namespace that options ask for; undefined is the host's. One range each is what kubelet hands out, and root
 * must be in it: the runtime sets the container up as root of the namespace.
 *
 * @throws {CriError} `InvalidArgument` for a mode or mappings that no pod can have.
 */
export function idMapsOf(options: cri.UserNamespace | null | undefined): IdMaps | undefined {
  if (!options) return undefined;
  const { mode, uids, gids } = options;
  if (mode === "CONTAINER" || mode === "TARGET") throw invalid(`user namespace mode ${mode} is not a mode of a pod`);
  if (mode === "POD") return { uids: onlyRange("uids", uids), gids: onlyRange("gids", gids) };
  if (uids.length + gids.length > 0) throw invalid("user namespace mode NODE takes no id mappings");
  return undefined;
}

/** The pod's user namespace. @throws {CriError} as `idMapsOf`. */
export function podIdMaps(sandbox: cri.PodSandboxConfig): IdMaps | undefined {
  return idMapsOf(sandbox.linux?.securityContext?.namespaceOptions?.usernsOptions);
}

function onlyRange(field: string, mappings: readonly cri.IDMapping[]): IdRange {
  const [mapping] = mappings;
  if (!mapping || mappings.length > 1) {
    throw invalid(`user namespace ${field}: exactly one id mapping is needed, not ${mappings.length}`);
  }
  const { containerId, hostId, length } = mapping;
  if (containerId !== 0) throw invalid(`user namespace ${field}: container id 0 is not mapped`);
  checkRange(`user namespace ${field}`, mapping);
  return { hostId, length };
}

/** @throws {CriError} `InvalidArgument` for a range that is empty or goes past the last id. */
export function checkRange(field: string, { containerId, hostId, length }: cri.IDMapping): void {
  const ends = [containerId + length, hostId + length];
  if (length >= 1 && ends.every((end) => end <= noId)) return;
  throw invalid(`${field}: id mapping ${containerId}:${hostId}:${length} is not a range of ids`);
}

/** @throws {CriError} `InvalidArgument` for a user or group that the pod's user namespace does not have. */
export function requireMapped(
  maps: IdMaps | undefined,
  user: Pick<ResolvedUser, "uid" | "gid" | "additionalGids">,
): void {
  if (!maps) return;
  if (user.uid >= maps.uids.length) throw invalid(`user ${user.uid} is not mapped in the pod's user namespace`);
  const group = [user.gid, ...user.additionalGids].find((gid) => gid >= maps.gids.length);
  if (group !== undefined) throw invalid(`group ${group} is not mapped in the pod's user namespace`);
}

/** Whether two user namespaces have the same ids. */
export function areSameIdMaps(one: IdMaps | undefined, other: IdMaps | undefined): boolean {
  if (!one || !other) return one === other;
  const isSame = (a: IdRange, b: IdRange): boolean => a.hostId === b.hostId && a.length === b.length;
  return isSame(one.uids, other.uids) && isSame(one.gids, other.gids);
}
