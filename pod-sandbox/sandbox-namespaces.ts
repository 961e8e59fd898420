import { pinNamespaces, unpinNamespace } from "../native/index.ts";
import { validateSysctls } from "../oci/index.ts";
import type { SandboxPaths } from "./layout.ts";
import { hostnameOf, namespaceOptionsOf } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { settleTogether } from "./undo.ts";

/** Makes and pins the namespaces that the pod does not share with the host, its sysctls and host name set inside. */
export async function pinSandboxNamespaces(sandbox: SandboxIn<"creating">, paths: SandboxPaths): Promise<void> {
  const modes = namespaceOptionsOf(sandbox.config);
  const isHostNetwork = modes.network === "NODE";
  await pinNamespaces({
    directory: paths.namespaces,
    kinds: [...(isHostNetwork ? [] : (["net", "uts"] as const)), ...(modes.ipc === "NODE" ? [] : (["ipc"] as const))],
    ...(isHostNetwork ? {} : { hostname: hostnameOf(sandbox) }),
    sysctls: validateSysctls(sandbox.config.linux?.sysctls ?? {}, {
      hasNetworkNamespace: !isHostNetwork,
      hasIpcNamespace: modes.ipc !== "NODE",
    }),
  });
}

/** Lets go of what `pinSandboxNamespaces` pinned. Idempotent. */
export async function unpinSandboxNamespaces(paths: SandboxPaths): Promise<void> {
  await settleTogether([paths.netns, paths.ipcns, paths.utsns].map((path) => unpinNamespace(path)));
}
