import type { OciResources } from "../spec/oci-types.ts";
import type { RuntimeHost } from "./host.ts";

/**
 * crun tells systemd the sum of memory and swap as the limit of swap alone (1.21 still does), so that a container could
 * swap as much as it may use. Written as cgroup v2's own file, in which the sum has no place, it is what was asked for.
 */
export function withSwapLimitOfItsOwn(
  host: Pick<RuntimeHost, "program" | "config" | "cgroupMounts">,
  resources: OciResources,
): OciResources {
  const isUnified = host.cgroupMounts.controllers["memory"] === undefined;
  if (host.program !== "crun" || host.config.cgroupDriver !== "systemd" || !isUnified) return resources;
  const { limit, swap } = resources.memory ?? {};
  if (limit === undefined || swap === undefined || swap < limit) return resources;
  return {
    ...resources,
    memory: { limit },
    unified: { "memory.swap.max": String(swap - limit), ...resources.unified },
  };
}
