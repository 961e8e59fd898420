import type { cri } from "../../cri-api/index.ts";
import { Code, CriError } from "../../cri-api/index.ts";
import type { CdiMount } from "../cdi/cdi-edits.ts";
import type { PodFiles, ResolvedMount } from "./input.ts";
import { invalid, quote } from "./invalid.ts";
import { propagationOption } from "./mount-propagation.ts";
import type { OciIdMapping, OciMount } from "./oci-types.ts";
import { assertNoControlCharacters, cleanAbsolutePath, isAtOrBelow } from "./text.ts";
import { checkRange } from "./user-namespace.ts";
import type { IdMaps } from "./user-namespace.ts";

/** What decides how a container sees the system's own file systems. */
export interface MountFacts {
  readonly isPrivileged: boolean;
  readonly hasReadonlyRootfs: boolean;
  readonly recursiveReadOnlyMounts: boolean;
  readonly idMappedMounts: boolean;
  readonly userNamespace?: UserNamespaceFacts | undefined;
}

/** A pod's user namespace, and what of the host's it is to look at from there. */
export interface UserNamespaceFacts {
  readonly maps: IdMaps;
  readonly isHostNetwork: boolean;
  readonly isHostIpc: boolean;
  readonly showsHostQueues: boolean;
  readonly isHostPid: boolean;
}

/** Files that lxcfs and its like may put over the kernel's; anywhere else in /proc a mount hides what LSMs rely on. */
const mountableInProc: ReadonlySet<string> = new Set(
  ["cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime"].map(
    (name) => `/proc/${name}`,
  ),
);

/**
 * All mounts in the order the runtime makes them: by depth of the destination, the system's before the pod's before
 * the container's. A mount of the container takes the place of an earlier one with the same destination; one on /dev
 * or /sys also drops what would have been mounted below.
 *
 * @throws {CriError} `InvalidArgument` for a mount that cannot be made; `FailedPrecondition` (`RROUnsupported`) for a
 * recursively read-only one that the runtime cannot make.
 */
export function buildMounts(
  podFiles: PodFiles,
  requested: readonly ResolvedMount[],
  facts: MountFacts,
  ofDevices: readonly CdiMount[] = [],
): readonly OciMount[] {
  const built = [...requested.map((each) => buildBindMount(each, facts)), ...ofDevices.map(buildDeviceMount)];
  const own = new Map(built.map((mount) => [mount.destination, mount])); // of two on one place the later hides the earlier
  const isReplaced = ({ destination }: OciMount): boolean =>
    own.has(destination) || ["/dev", "/sys"].some((root) => own.has(root) && isAtOrBelow(destination, root));
  const defaults = [...systemMounts(facts.isPrivileged, facts.userNamespace), ...podMounts(podFiles, facts)];
  const all = [...defaults.filter((mount) => !isReplaced(mount)), ...own.values()];
  return all.sort((a, b) => depthOf(a.destination) - depthOf(b.destination));
}

/** A bind mount says so in its options, which is all that runtimes look at. */
function buildDeviceMount({ hostPath, containerPath, options, type }: CdiMount): OciMount {
  const destination = checkDestination(containerPath, hostPath);
  if (!isBindMount({ options, type })) return { destination, type, source: hostPath, options };
  const isMarked = options.includes("bind") || options.includes("rbind");
  return { destination, type: "bind", source: hostPath, options: isMarked ? options : ["rbind", ...options] };
}

export function isBindMount({ options, type }: Pick<CdiMount, "options" | "type">): boolean {
  return ["", "bind", "none"].includes(type) || options.includes("bind") || options.includes("rbind");
}

/** `tty`, the same in every distribution. */
const terminalGroup = 5;

function depthOf(path: string): number {
  return path.split("/").length;
}

/** Nothing in an image that is a volume may be written, run or gain rights, whatever the request says. */
const imageMountOptions: readonly string[] = ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"];

function buildBindMount({ mount, sourcePath }: ResolvedMount, facts: MountFacts): OciMount {
  const destination = checkDestination(mount.containerPath, sourcePath);
  assertNoControlCharacters("mount source", sourcePath);
  if (mount.recursiveReadOnly && !facts.recursiveReadOnlyMounts) {
    throw new CriError(
      Code.FailedPrecondition,
      `RROUnsupported: recursive read-only mount ${quote(destination)} is not supported by this runtime handler`,
    );
  }
  const bind = { destination, type: "bind", source: sourcePath };
  if (mount.image) return { ...bind, options: imageMountOptions }; // its owners are mapped by the layers
  const access = mount.recursiveReadOnly ? "rro" : mount.readonly ? "ro" : "rw";
  const options = ["rbind", propagationOption(mount.propagation), access, ...new Set(mount.mountOptions)];
  return { ...bind, options, ...mappedOwners(mount, facts) };
}

function mappedOwners(
  { containerPath, uidMappings, gidMappings }: cri.Mount,
  facts: MountFacts,
): Pick<OciMount, "uidMappings" | "gidMappings"> {
  if (uidMappings.length === 0) return {};
  if (facts.idMappedMounts) return { uidMappings: uidMappings.map(toOci), gidMappings: gidMappings.map(toOci) };
  const name = quote(containerPath);
  throw new CriError(Code.FailedPrecondition, `id-mapped mount ${name} is not supported by this runtime handler`);
}

function toOci({ containerId, hostId, length }: cri.IDMapping): OciIdMapping {
  return { containerID: containerId, hostID: hostId, size: length };
}

function checkDestination(containerPath: string, sourcePath: string): string {
  const destination = cleanAbsolutePath("mount container_path", containerPath);
  if (destination === "/") throw invalid(`mount container_path ${quote(containerPath)} is the root itself`);
  const isHostProc = destination === "/proc" && sourcePath === "/proc";
  if (isAtOrBelow(destination, "/proc") && !isHostProc && !mountableInProc.has(destination)) {
    throw invalid(`mount container_path ${quote(containerPath)} lies in /proc, where no mount is allowed`);
  }
  return destination;
}

/**
 * What the mount's own fields contradict, before anything is looked up.
 *
 * @throws {CriError} `InvalidArgument`, with a message of its own for each contradiction.
 */
export function validateMount(mount: cri.Mount): void {
  const name = quote(mount.containerPath);
  validateMappings(mount);
  if (mount.containerPath === "") throw invalid("mount container_path is empty");
  validateMountOptions(mount);
  if (mount.image) return validateImageMount(mount, mount.image);
  if (mount.imageSubPath !== "") throw invalid(`mount ${name}: image_sub_path needs an image`);
  if (mount.hostPath === "") throw invalid(`mount ${name}: host_path is empty`);
  cleanAbsolutePath("mount container_path", mount.containerPath);
  cleanAbsolutePath("mount host_path", mount.hostPath);
  if (!mount.recursiveReadOnly) return;
  if (!mount.readonly) throw invalid(`mount ${name}: recursive read-only mount conflicts with read-write mount`);
  if (mount.propagation !== "PROPAGATION_PRIVATE") {
    throw invalid(`mount ${name}: recursive read-only mount requires private propagation, not ${mount.propagation}`);
  }
}

function validateImageMount(mount: cri.Mount, { image }: cri.ImageSpec): void {
  const name = quote(mount.containerPath);
  if (image === "") throw invalid(`mount ${name}: the image has no name`);
  if (mount.hostPath !== "") throw invalid(`mount ${name}: host_path and image exclude each other`);
  cleanAbsolutePath("mount container_path", mount.containerPath);
  if (mount.propagation !== "PROPAGATION_PRIVATE") {
    throw invalid(`mount ${name}: an image needs private propagation, not ${mount.propagation}`);
  }
  assertNoControlCharacters("mount image_sub_path", mount.imageSubPath);
  if (mount.imageSubPath.startsWith("/") || mount.imageSubPath.split("/").includes("..")) {
    throw invalid(`mount ${name}: image_sub_path ${quote(mount.imageSubPath)} leads out of the image`);
  }
}

/** What the contract names; others would change more than the one mount. */
const knownMountOptions: readonly string[] = ["noexec", "nodev", "nosuid"];

function validateMountOptions({ containerPath, mountOptions }: cri.Mount): void {
  const unknown = mountOptions.find((option) => !knownMountOptions.includes(option));
  if (unknown === undefined) return;
  throw invalid(`mount ${quote(containerPath)}: mount option ${quote(unknown)} is none of noexec, nodev, nosuid`);
}

/** What the kernel takes. */
const maxMappings = 340;

function validateMappings({ containerPath, uidMappings, gidMappings }: cri.Mount): void {
  const field = `mount ${quote(containerPath)}`;
  const hasBoth = uidMappings.length > 0 === gidMappings.length > 0;
  if (!hasBoth) throw invalid(`${field}: uidMappings and gidMappings need each other`);
  for (const mappings of [uidMappings, gidMappings]) {
    if (mappings.length > maxMappings) throw invalid(`${field}: more than ${maxMappings} id mappings`);
    for (const mapping of mappings) checkRange(field, mapping);
  }
}

/**
 * The kernel's own file systems; a container that is not privileged may not write /sys and the cgroup tree. Those of
 * namespaces of the host cannot be mounted from within a user namespace: there the host's own mounts are shown.
 */
function systemMounts(isPrivileged: boolean, userns?: UserNamespaceFacts): readonly OciMount[] {
  const access = isPrivileged ? "rw" : "ro";
  const hasTerminalGroup = !userns || userns.maps.gids.length > terminalGroup;
  return [
    userns?.isHostPid
      ? hostMount("/proc", "rw")
      : { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        ...(hasTerminalGroup ? [`gid=${terminalGroup}`] : []),
      ],
    },
    ...queueMounts(userns),
    userns?.isHostNetwork
      ? hostMount("/sys", access)
      : { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", access] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "relatime", access],
    },
  ];
}

function queueMounts(userns?: UserNamespaceFacts): readonly OciMount[] {
  if (userns?.isHostIpc) return userns.showsHostQueues ? [hostMount("/dev/mqueue", "rw")] : [];
  return [{ destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] }];
}

function hostMount(path: string, access: string): OciMount {
  const options = ["rbind", "rprivate", "nosuid", "noexec", "nodev", access];
  return { destination: path, type: "bind", source: path, options };
}

/** The pause process needs a /proc to be looked at and a /dev for the runtime, nothing else. */
export function buildPauseMounts(): readonly OciMount[] {
  return systemMounts(false).filter(({ destination }) => destination === "/proc" || destination === "/dev");
}

/** The hostname file is the pod's own; a container may edit what else it gets unless its root is read-only. */
function podMounts(files: PodFiles, facts: MountFacts): readonly OciMount[] {
  const access = facts.hasReadonlyRootfs ? "ro" : "rw";
  const file = (destination: string, source: string | undefined, mode: string): readonly OciMount[] =>
    source === undefined
      ? []
      : [{ destination, type: "bind", source, options: ["bind", "rprivate", mode, "nosuid", "nodev", "noexec"] }];
  return [
    {
      destination: "/dev/shm",
      type: "bind",
      source: files.shm,
      options: ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
    },
    ...file("/etc/resolv.conf", files.resolvConf, access),
    ...file("/etc/hostname", files.hostname, "ro"),
    ...file("/etc/hosts", files.hosts, access),
    ...file("/etc/passwd", files.passwd, access),
    ...file("/etc/group", files.group, access),
  ];
}
