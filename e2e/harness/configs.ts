import path from "node:path";
import type { cri, Init } from "../../cri-api/index.ts";
import type { Workspace } from "./workspace.ts";

/** What kubelet would send for a plain pod: own network, IPC and process namespaces per container, no privileges. */
export function podConfig(
  workspace: Workspace,
  name: string,
  overrides: Init<cri.PodSandboxConfig> = {},
): Init<cri.PodSandboxConfig> {
  return {
    metadata: { name, uid: `uid-${name}`, namespace: "e2e", attempt: 0 },
    hostname: name,
    logDirectory: path.join(workspace.logs, name),
    ...overrides,
    linux: {
      cgroupParent: workspace.cgroupParent,
      ...overrides.linux,
      securityContext: { namespaceOptions: { pid: "CONTAINER" }, ...overrides.linux?.securityContext },
    },
  };
}

/** A container of an image with its log in the pod's log directory. */
export function containerConfig(
  name: string,
  image: string,
  overrides: Init<cri.ContainerConfig> = {},
): Init<cri.ContainerConfig> {
  return {
    metadata: { name, attempt: 0 },
    image: { image, userSpecifiedImage: image },
    logPath: `${name}.log`,
    ...overrides,
    linux: {
      ...overrides.linux,
      securityContext: { namespaceOptions: { pid: "CONTAINER" }, ...overrides.linux?.securityContext },
    },
  };
}
