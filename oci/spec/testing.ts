import type { cri } from "../../cri-api/index.ts";
import { knownCapabilities } from "./capabilities.ts";
import type { ContainerSpecInput, HostFacts, ImageDefaults } from "./input.ts";

/** A security context as kubelet's defaults make it, without its lists of paths. */
export function securityContext(
  overrides: Partial<cri.LinuxContainerSecurityContext> = {},
): cri.LinuxContainerSecurityContext {
  return {
    capabilities: null,
    privileged: false,
    namespaceOptions: null,
    selinuxOptions: null,
    runAsUser: null,
    runAsGroup: null,
    runAsUsername: "",
    readonlyRootfs: false,
    supplementalGroups: [],
    supplementalGroupsPolicy: "Merge",
    noNewPrivs: false,
    maskedPaths: [],
    readonlyPaths: [],
    seccomp: null,
    apparmor: null,
    apparmorProfile: "",
    seccompProfilePath: "",
    ...overrides,
  };
}

/** Resources of which nothing is set. */
export function linuxResources(overrides: Partial<cri.LinuxContainerResources> = {}): cri.LinuxContainerResources {
  return {
    cpuPeriod: 0n,
    cpuQuota: 0n,
    cpuShares: 0n,
    memoryLimitInBytes: 0n,
    oomScoreAdj: 0n,
    cpusetCpus: "",
    cpusetMems: "",
    hugepageLimits: [],
    unified: {},
    memorySwapLimitInBytes: 0n,
    ...overrides,
  };
}

/** A mount of a host directory, read-write and private. */
export function criMount(overrides: Partial<cri.Mount> = {}): cri.Mount {
  return {
    containerPath: "/data",
    hostPath: "/srv/data",
    readonly: false,
    selinuxRelabel: false,
    propagation: "PROPAGATION_PRIVATE",
    uidMappings: [],
    gidMappings: [],
    recursiveReadOnly: false,
    image: null,
    imageSubPath: "",
    mountOptions: [],
    ...overrides,
  };
}

export function containerConfig(overrides: Partial<cri.ContainerConfig> = {}): cri.ContainerConfig {
  return {
    metadata: { name: "web", attempt: 0 },
    image: null,
    command: [],
    args: [],
    workingDir: "",
    envs: [],
    mounts: [],
    devices: [],
    labels: {},
    annotations: {},
    logPath: "",
    stdin: false,
    stdinOnce: false,
    tty: false,
    linux: { resources: null, securityContext: securityContext() },
    windows: null,
    CDIDevices: [],
    stopSignal: "SIGNAL_RUNTIME_DEFAULT",
    ...overrides,
  };
}

export function sandboxSecurityContext(
  overrides: Partial<cri.LinuxSandboxSecurityContext> = {},
): cri.LinuxSandboxSecurityContext {
  return {
    namespaceOptions: null,
    selinuxOptions: null,
    runAsUser: null,
    runAsGroup: null,
    readonlyRootfs: false,
    supplementalGroups: [],
    supplementalGroupsPolicy: "Merge",
    privileged: false,
    seccomp: null,
    apparmor: null,
    seccompProfilePath: "",
    ...overrides,
  };
}

export function sandboxConfig(context: Partial<cri.LinuxSandboxSecurityContext> = {}): cri.PodSandboxConfig {
  return {
    metadata: { name: "pod", uid: "uid", namespace: "default", attempt: 0 },
    hostname: "pod",
    logDirectory: "",
    dnsConfig: null,
    portMappings: [],
    labels: {},
    annotations: {},
    linux: {
      cgroupParent: "",
      securityContext: sandboxSecurityContext(context),
      sysctls: {},
      overhead: null,
      resources: null,
    },
    windows: null,
  };
}

export const imageDefaults: ImageDefaults = {
  entrypoint: ["/bin/server"],
  cmd: ["--port", "80"],
  env: ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
  workingDir: "/srv",
  user: "",
  stopSignal: "",
  volumes: [],
};

/** A host that can do everything, on x86-64 with cgroup v2. */
export const ableHost: HostFacts = {
  capabilities: knownCapabilities,
  oomScoreAdjMin: -1000,
  seccompSupported: true,
  cgroupLayout: "v2",
  recursiveReadOnlyMounts: true,
  architecture: "x86_64",
};

export function specInput(overrides: Partial<ContainerSpecInput> = {}): ContainerSpecInput {
  return {
    id: "c1",
    config: containerConfig(),
    sandbox: sandboxConfig(),
    image: imageDefaults,
    rootfsPath: "/run/berth/containers/c1/rootfs",
    user: { uid: 0, gid: 0, additionalGids: [0], home: "/root", username: "root" },
    mounts: [],
    devices: [],
    podFiles: { resolvConf: "/pod/resolv.conf", hostname: "/pod/hostname", hosts: "/pod/hosts", shm: "/pod/shm" },
    namespaces: { network: "/ns/net", ipc: "/ns/ipc", uts: "/ns/uts", pid: { kind: "new" } },
    cgroup: { path: "/kubepods/pod/c1", layout: "v2" },
    host: ableHost,
    hostname: "pod",
    ...overrides,
  };
}
