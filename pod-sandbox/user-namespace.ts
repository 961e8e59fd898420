import { chmod, chown } from "node:fs/promises";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { IdMapping } from "../native/index.ts";
import { podIdMaps } from "../oci/index.ts";
import type { IdMaps, Runtime } from "../oci/index.ts";

/** @throws {CriError} `FailedPrecondition` when the pod needs what its runtime handler cannot do. */
export function requireUserNamespaces(
  runtime: Pick<Runtime, "handler" | "features">,
  config: cri.PodSandboxConfig,
): void {
  if (runtime.features.userNamespaces || !podIdMaps(config)) return;
  throw new CriError(
    Code.FailedPrecondition,
    `user namespaces are not supported by runtime handler "${runtime.handler}": its runtime or this kernel cannot map mounts`,
  );
}

/** Who, on the host, is root in the pod; undefined where root is the host's. */
export function podRootOf(config: cri.PodSandboxConfig): { readonly uid: number; readonly gid: number } | undefined {
  const maps = podIdMaps(config);
  return maps && { uid: maps.uids.hostId, gid: maps.gids.hostId };
}

/** Who a user of the pod is on the host; nothing where ids are the host's. */
export function hostUserOf(
  config: cri.PodSandboxConfig,
  user: { readonly uid: number; readonly gid: number },
): { readonly hostUser?: { readonly uid: number; readonly gid: number } } {
  const root = podRootOf(config);
  return root ? { hostUser: { uid: root.uid + user.uid, gid: root.gid + user.gid } } : {};
}

/** Makes files of ours those of the pod's root, who could not write them otherwise. */
export async function giveToPodRoot(config: cri.PodSandboxConfig, paths: readonly string[]): Promise<void> {
  const root = podRootOf(config);
  if (root) await Promise.all(paths.map((path) => chown(path, root.uid, root.gid)));
}

/** Lets the pod's root through directories of ours, on the way to what is his, without a look at what else is in them. */
export async function letPodRootThrough(config: cri.PodSandboxConfig, directories: readonly string[]): Promise<void> {
  const root = podRootOf(config);
  if (!root) return;
  for (const directory of directories) {
    await chown(directory, 0, root.gid);
    await chmod(directory, 0o710);
  }
}

/** As the kernel's uid_map and gid_map have it. */
export function kernelMappings({ uids, gids }: IdMaps): {
  readonly uidMappings: readonly IdMapping[];
  readonly gidMappings: readonly IdMapping[];
} {
  return {
    uidMappings: [{ containerId: 0, hostId: uids.hostId, size: uids.length }],
    gidMappings: [{ containerId: 0, hostId: gids.hostId, size: gids.length }],
  };
}
