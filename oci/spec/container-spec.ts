import type { cri } from "../../cri-api/index.ts";
import type { CdiHook, CdiNetDevice } from "../cdi/cdi-edits.ts";
import { buildCapabilities } from "./capabilities.ts";
import { buildDevices } from "./devices.ts";
import type { DeviceSection } from "./devices.ts";
import type { ContainerSpecInput, HostFacts, PauseSpecInput } from "./input.ts";
import { checkMountPropagation, rootfsPropagation } from "./mount-propagation.ts";
import { buildMounts, buildPauseMounts } from "./mounts.ts";
import type { MountFacts } from "./mounts.ts";
import { buildNamespaces } from "./namespaces.ts";
import type { CapabilitySets, LinuxSection, OciHook, OciResources, Process, Spec } from "./oci-types.ts";
import { addToEnv, buildArgs, buildCwd, buildEnv } from "./process.ts";
import { buildProtectedPaths } from "./protected-paths.ts";
import { buildOomScoreAdj, toOciResources } from "./resources.ts";
import { buildSeccomp, chooseSeccomp } from "./seccomp.ts";
import { defaultSeccompProfile } from "./seccomp-default.ts";
import type { SeccompArchitecture } from "./seccomp-default.ts";
import { cleanAbsolutePath } from "./text.ts";
import { toId } from "./user.ts";
import { buildApparmorProfile } from "./security-labels.ts";
import { podIdMaps, requireMapped } from "./user-namespace.ts";
import type { IdMaps } from "./user-namespace.ts";

/** The oldest that has all we write; crun 1.8.1 refuses anything newer than 1.1.0. */
const ociVersion = "1.0.2";
const umask = 0o022;
/** The user of upstream's pause image, which owns nothing. */
const pauseId = 65_535;
const pauseOomScoreAdj = -998;
const pauseShares = 2;

/**
 * The runtime configuration of one container, from the request, the image and what the host can do. Pure. None of the
 * user's annotations goes in: runtimes read some of them as orders (CVE-2024-3154).
 *
 * @throws {CriError} `InvalidArgument` for what the request gets wrong, `FailedPrecondition` for what this host cannot.
 * @see https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md
 */
export function buildContainerSpec(input: ContainerSpecInput): Spec {
  const context = input.config.linux?.securityContext ?? null;
  const capabilities = buildCapabilities(context, input.host.capabilities);
  const hasReadonlyRootfs = context?.readonlyRootfs ?? false;
  const maps = podIdMaps(input.sandbox);
  const devices = buildDeviceSection(input, maps !== undefined);
  checkMountPropagation(input.mounts, input.mountTable ?? []);
  requireMapped(maps, input.user);
  return {
    ociVersion,
    process: buildProcess(input, capabilities),
    root: { path: input.rootfsPath, readonly: hasReadonlyRootfs },
    mounts: [
      ...buildMounts(input.podFiles, input.mounts, mountFactsOf(input, maps), input.cdi?.mounts),
      ...devices.mounts,
    ],
    ...(input.cdi && input.cdi.hooks.length > 0 ? { hooks: buildHooks(input.cdi.hooks) } : {}),
    linux: buildLinux(input, capabilities, devices),
  };
}

function mountFactsOf(input: ContainerSpecInput, maps: IdMaps | undefined): MountFacts {
  const context = input.config.linux?.securityContext;
  return {
    isPrivileged: context?.privileged ?? false,
    hasReadonlyRootfs: context?.readonlyRootfs ?? false,
    recursiveReadOnlyMounts: input.host.recursiveReadOnlyMounts ?? false,
    idMappedMounts: input.host.idMappedMounts ?? false,
    userNamespace: maps && userNamespaceFacts(maps, input),
  };
}

/** An empty list of arguments is left out: crun would start the hook without even its name. */
function buildHooks(hooks: readonly CdiHook[]): NonNullable<Spec["hooks"]> {
  const built: Partial<Record<CdiHook["hookName"], OciHook[]>> = {};
  for (const { hookName, args, ...hook } of hooks) {
    const ofStage = (built[hookName] ??= []);
    ofStage.push(args.length === 0 ? hook : { ...hook, args });
  }
  return built;
}

function userNamespaceFacts(maps: IdMaps, { namespaces, host }: ContainerSpecInput): MountFacts["userNamespace"] {
  return {
    maps,
    isHostNetwork: namespaces.network === undefined,
    isHostIpc: namespaces.ipc === undefined,
    showsHostQueues: host.showsMessageQueues ?? false,
    isHostPid: namespaces.pid.kind === "host",
  };
}

function buildProcess(input: ContainerSpecInput, capabilities: CapabilitySets): Process {
  const { config, image, user, host, selinux } = input;
  const context = config.linux?.securityContext ?? null;
  const apparmorProfile = buildApparmorProfile(context, host.apparmor);
  return {
    terminal: config.tty,
    user: { uid: user.uid, gid: user.gid, umask, additionalGids: user.additionalGids },
    args: buildArgs(config, image),
    env: addToEnv(
      buildEnv(config.envs, image.env, { hostname: input.hostname, tty: config.tty, home: user.home }),
      input.cdi?.env ?? [],
    ),
    cwd: buildCwd(config.workingDir, image.workingDir),
    capabilities,
    noNewPrivileges: context?.noNewPrivs ?? false,
    oomScoreAdj: buildOomScoreAdj(config.linux?.resources?.oomScoreAdj ?? 0n, host.oomScoreAdjMin),
    ...(apparmorProfile === undefined ? {} : { apparmorProfile }),
    ...(selinux ? { selinuxLabel: selinux.process } : {}),
  };
}

function buildDeviceSection(input: ContainerSpecInput, hasUserNamespace: boolean): DeviceSection {
  const isPrivileged = input.config.linux?.securityContext?.privileged ?? false;
  const hasDevMount = input.mounts.some(
    ({ mount }) => cleanAbsolutePath("mount container_path", mount.containerPath) === "/dev",
  );
  const { uid, gid } = input.user;
  const ofCdi = (input.cdi?.devices ?? []).map((device) => ({ uid, gid, ...device }));
  return buildDevices([...input.devices, ...ofCdi], {
    isPrivileged,
    devices: input.host.devices ?? [],
    hasDevMount,
    hasUserNamespace,
  });
}

function buildLinux(input: ContainerSpecInput, capabilities: CapabilitySets, section: DeviceSection): LinuxSection {
  const { config, host, cgroup, selinux } = input;
  const context = config.linux?.securityContext ?? null;
  const isPrivileged = context?.privileged ?? false;
  const propagation = rootfsPropagation(input.mounts.map(({ mount }) => mount));
  const seccomp = buildSeccomp(
    chooseSeccomp(context),
    { architecture: architectureOf(host), capabilities: capabilities.bounding },
    { isSupported: host.seccompSupported, localhost: input.localhostSeccomp },
  );
  return {
    namespaces: buildNamespaces(input.namespaces, { layout: cgroup.layout, isPrivileged }),
    cgroupsPath: cgroup.path,
    resources: { ...resourcesOf(input), devices: section.rules },
    devices: section.devices,
    ...buildProtectedPaths(context),
    ...(propagation ? { rootfsPropagation: propagation } : {}),
    ...(seccomp ? { seccomp } : {}),
    ...(selinux ? { mountLabel: selinux.file } : {}),
    ...(input.cdi?.intelRdt ? { intelRdt: input.cdi.intelRdt } : {}),
    ...(input.cdi && input.cdi.netDevices.length > 0 ? { netDevices: toNetDevices(input.cdi.netDevices) } : {}),
  };
}

function toNetDevices(devices: readonly CdiNetDevice[]): Record<string, { name: string }> {
  return Object.fromEntries(devices.map(({ hostInterfaceName, name }) => [hostInterfaceName, { name }]));
}

function resourcesOf({ config, cgroup, host }: ContainerSpecInput): OciResources {
  const resources = config.linux?.resources;
  return resources ? toOciResources(resources, cgroup.layout, host) : {};
}

function architectureOf(host: HostFacts): SeccompArchitecture {
  return host.architecture ?? (process.arch === "arm64" ? "aarch64" : "x86_64");
}

/**
 * The process that holds a pod-wide PID namespace: no capabilities, a user that owns nothing unless the pod names one,
 * a read-only root, our seccomp profile. Its root must let that user in and hold `/proc` and `/dev`.
 */
export function buildPauseSpec(input: PauseSpecInput): Spec {
  const { host, cgroup, selinux } = input;
  const maps = podIdMaps(input.sandbox);
  const { uid, gid } = pauseUser(input.sandbox, maps);
  const none: readonly string[] = [];
  const apparmorProfile = host.apparmor?.defaultProfile;
  const seccomp = host.seccompSupported
    ? { seccomp: defaultSeccompProfile({ architecture: architectureOf(host), capabilities: none }) }
    : {};
  return {
    ociVersion,
    process: {
      terminal: false,
      user: { uid, gid, umask, additionalGids: [gid] },
      args: input.args,
      env: [],
      cwd: "/",
      capabilities: { bounding: none, effective: none, permitted: none, inheritable: none, ambient: none },
      noNewPrivileges: true,
      oomScoreAdj: buildOomScoreAdj(BigInt(pauseOomScoreAdj), host.oomScoreAdjMin),
      ...(apparmorProfile === undefined ? {} : { apparmorProfile }),
      ...(selinux ? { selinuxLabel: selinux.process } : {}),
    },
    root: { path: input.rootfsPath, readonly: true },
    mounts: buildPauseMounts(),
    linux: {
      namespaces: buildNamespaces(
        { ...input.namespaces, pid: { kind: "new" } },
        { layout: cgroup.layout, isPrivileged: false },
      ),
      cgroupsPath: cgroup.path,
      resources: { cpu: { shares: pauseShares }, devices: [{ allow: false, access: "rwm" }] },
      devices: [],
      ...buildProtectedPaths(null),
      ...seccomp,
      ...(selinux ? { mountLabel: selinux.file } : {}),
    },
  };
}

function pauseUser(
  sandbox: cri.PodSandboxConfig,
  maps: IdMaps | undefined,
): { readonly uid: number; readonly gid: number } {
  const context = sandbox.linux?.securityContext;
  const ownId = (length = pauseId + 1): bigint => BigInt(Math.min(pauseId, length - 1));
  const uid = toId("run_as_user", context?.runAsUser?.value ?? ownId(maps?.uids.length));
  const gid = toId("run_as_group", context?.runAsGroup?.value ?? ownId(maps?.gids.length));
  requireMapped(maps, { uid, gid, additionalGids: [] });
  return { uid, gid };
}
