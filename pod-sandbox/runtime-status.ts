import type { Call, cri, Init } from "../cri-api/index.ts";
import { chooseRuntime } from "./host.ts";
import type { Host } from "./host.ts";
import { toInfoJson } from "./info-json.ts";

/** kubelet refuses an empty field; it reads `runtimeApiVersion` as the CRI version. */
export async function version(
  _call: Call,
  _request: cri.VersionRequest,
  host: Host,
): Promise<Init<cri.VersionResponse>> {
  return {
    version: "0.1.0",
    runtimeName: "berth",
    runtimeVersion: host.config.runtimeVersion,
    runtimeApiVersion: "v1",
  };
}

/** Conditions, handlers (the default one also under the name "") and features; answered from memory. */
export async function status(_call: Call, request: cri.StatusRequest, host: Host): Promise<Init<cri.StatusResponse>> {
  const network = host.network.status();
  const registryProblems = host.images.registryProblems();
  return {
    status: {
      conditions: [
        { type: "RuntimeReady", status: true },
        network.ready
          ? { type: "NetworkReady", status: true }
          : { type: "NetworkReady", status: false, reason: "NetworkPluginNotReady", message: network.message },
        registryProblems.length === 0
          ? { type: "RegistriesReady", status: true }
          : { type: "RegistriesReady", status: false, reason: "BadFile", message: registryProblems.join("; ") },
      ],
    },
    runtimeHandlers: ["", ...host.runtimes.keys()].map((name) => ({
      name,
      features: chooseRuntime(host, name).features,
    })),
    features: {
      supplementalGroupsPolicy: true,
      mountOptions: true,
      userNamespacesHostNetwork: [...host.runtimes.values()].some(({ features }) => features.userNamespaces),
    },
    info: request.verbose ? verboseInfo(host) : {},
  };
}

function verboseInfo(host: Host): Record<string, string> {
  const runtimes = [...host.runtimes.values()].map(({ handler, version: runtimeVersion, features }) => ({
    handler,
    version: runtimeVersion,
    features,
  }));
  const { root, state, cgroupDriver, defaultRuntime } = host.config;
  return {
    config: toInfoJson({ rootDir: root, stateDir: state, cgroupDriver, defaultRuntime, runtimes }),
    network: toInfoJson(host.network.status()),
    imagePulls: toInfoJson(host.images.pullsInProgress()),
    objects: toInfoJson({ podSandboxes: host.sandboxes.list().length, containers: host.containers.list().length }),
  };
}

/** kubelet reads the cgroup driver once, at its start. */
export async function runtimeConfig(
  _call: Call,
  _request: cri.RuntimeConfigRequest,
  host: Host,
): Promise<Init<cri.RuntimeConfigResponse>> {
  return { linux: { cgroupDriver: host.config.cgroupDriver === "systemd" ? "SYSTEMD" : "CGROUPFS" } };
}

/** Accepted and ignored: the pod CIDR belongs to the CNI configuration here, as in CRI-O. */
export async function updateRuntimeConfig(
  call: Call,
  request: cri.UpdateRuntimeConfigRequest,
): Promise<Init<cri.UpdateRuntimeConfigResponse>> {
  call.log.debug({ podCidr: request.runtimeConfig?.networkConfig?.podCidr }, "pod CIDR is left to the CNI plugins");
  return {};
}
