import type { cri } from "../cri-api/index.ts";
import { pinNamespaces, pinUserNamespace, unpinNamespace } from "../native/index.ts";
import { podIdMaps, validateSysctls } from "../oci/index.ts";
import type { SandboxPaths } from "./layout.ts";
import { hostnameOf, namespaceOptionsOf } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { settleTogether } from "./undo.ts";
import { kernelMappings } from "./user-namespace.ts";

/** Makes and pins the namespaces that the pod does not share with the host, its sysctls and host name set inside. */
export async function pinSandboxNamespaces(sandbox: SandboxIn<"creating">, paths: SandboxPaths): Promise<void> {
  const modes = namespaceOptionsOf(sandbox.config);
  const isHostNetwork = modes.network === "NODE";
  const maps = podIdMaps(sandbox.config);
  if (maps) await pinUserNamespace({ path: paths.userns, ...kernelMappings(maps) });
  await pinNamespaces({
    ...(maps ? { userNamespace: paths.userns } : {}),
    directory: paths.namespaces,
    kinds: [...(isHostNetwork ? [] : (["net", "uts"] as const)), ...(modes.ipc === "NODE" ? [] : (["ipc"] as const))],
    ...(isHostNetwork ? {} : { hostname: hostnameOf(sandbox) }),
    sysctls: validateSysctls(sandbox.config.linux?.sysctls ?? {}, {
      hasNetworkNamespace: !isHostNetwork,
      hasIpcNamespace: modes.ipc !== "NODE",
    }),
  });
}

/** Where the namespaces are pinned that a pod does not share with the host. */
export function pinnedNamespaces(config: cri.PodSandboxConfig, paths: SandboxPaths): readonly string[] {
  const { network, ipc } = namespaceOptionsOf(config);
  return [
    ...(network === "NODE" ? [] : [paths.netns, paths.utsns]),
    ...(ipc === "NODE" ? [] : [paths.ipcns]),
    ...(podIdMaps(config) ? [paths.userns] : []),
  ];
}

/** Lets go of what `pinSandboxNamespaces` pinned. Idempotent. */
export async function unpinSandboxNamespaces(paths: SandboxPaths): Promise<void> {
  await settleTogether([paths.netns, paths.ipcns, paths.utsns, paths.userns].map((path) => unpinNamespace(path)));
}
