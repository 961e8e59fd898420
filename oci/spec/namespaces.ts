import type { CgroupLayout, NamespacePaths, PidNamespace } from "./input.ts";
import type { OciNamespace } from "./oci-types.ts";

/**
 * The namespaces of a container: its own mount namespace, the pod's pinned ones by path, the host's by leaving them
 * out. On cgroup v2 an unprivileged container also gets its own view of the cgroup tree.
 */
export function buildNamespaces(
  namespaces: NamespacePaths & { readonly pid: PidNamespace },
  place: { readonly layout: CgroupLayout; readonly isPrivileged: boolean },
): readonly OciNamespace[] {
  const joined = (["user", "network", "ipc", "uts"] as const).flatMap((type) => {
    const path = namespaces[type];
    return path === undefined ? [] : [{ type, path }];
  });
  const ownCgroup = place.layout === "v2" && !place.isPrivileged;
  return [
    { type: "mount" },
    ...pidNamespace(namespaces.pid),
    ...joined,
    ...(ownCgroup ? [{ type: "cgroup" } as const] : []),
  ];
}

function pidNamespace(pid: PidNamespace): readonly OciNamespace[] {
  switch (pid.kind) {
    case "new":
      return [{ type: "pid" }];
    case "host":
      return [];
    case "path":
      return [{ type: "pid", path: pid.path }];
  }
}
