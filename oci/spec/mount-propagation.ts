import type { cri } from "../../cri-api/index.ts";
import { invalid, quote } from "./invalid.ts";
import { isAtOrBelow } from "./text.ts";

/** What we read of one line of /proc/self/mountinfo, in the file's order. */
export interface MountTableEntry {
  readonly mountPoint: string;
  /** Peer group of a shared mount (`shared:N`). */
  readonly shared?: number | undefined;
  /** Peer group that a slave mount receives from (`master:N`). */
  readonly master?: number | undefined;
}

const optionByPropagation = {
  PROPAGATION_PRIVATE: "rprivate",
  PROPAGATION_HOST_TO_CONTAINER: "rslave",
  PROPAGATION_BIDIRECTIONAL: "rshared",
} as const satisfies Record<cri.MountPropagation, string>;

/** The bind mount's propagation option. */
export function propagationOption(propagation: cri.MountPropagation): "rprivate" | "rslave" | "rshared" {
  return optionByPropagation[propagation];
}

/** The rootfs must let through what any of its mounts lets through; undefined leaves the runtime's private default. */
export function rootfsPropagation(mounts: readonly Pick<cri.Mount, "propagation">[]): "rshared" | "rslave" | undefined {
  const wanted = new Set(mounts.map(({ propagation }) => propagationOption(propagation)));
  if (wanted.has("rshared")) return "rshared";
  return wanted.has("rslave") ? "rslave" : undefined;
}

/**
 * A mount can only propagate where the host's mount below its source does.
 *
 * @throws {CriError} `InvalidArgument` naming the source and the mount it lies on.
 */
export function checkMountPropagation(
  mounts: readonly { readonly mount: Pick<cri.Mount, "propagation">; readonly sourcePath: string }[],
  table: readonly MountTableEntry[],
): void {
  for (const { mount, sourcePath } of mounts) {
    if (mount.propagation === "PROPAGATION_PRIVATE") continue;
    const parent = mountHolding(sourcePath, table);
    const isShared = parent?.shared !== undefined;
    const isEnough =
      isShared || (mount.propagation === "PROPAGATION_HOST_TO_CONTAINER" && parent?.master !== undefined);
    if (isEnough) continue;
    const needed = mount.propagation === "PROPAGATION_BIDIRECTIONAL" ? "shared" : "shared or slave";
    const place = parent ? quote(parent.mountPoint) : "no known mount";
    throw invalid(`path ${quote(sourcePath)} is mounted on ${place}, which is not a ${needed} mount`);
  }
}

/** The deepest mount point over the path; of several on one place, the last one mounted. */
function mountHolding(path: string, table: readonly MountTableEntry[]): MountTableEntry | undefined {
  let best: MountTableEntry | undefined;
  for (const entry of table) {
    const isDeeper = !best || entry.mountPoint.length >= best.mountPoint.length;
    if (isDeeper && isAtOrBelow(path, entry.mountPoint)) best = entry;
  }
  return best;
}
