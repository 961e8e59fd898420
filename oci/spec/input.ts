import type { cri } from "../../cri-api/index.ts";
import type { CdiEdits, CdiMount } from "../cdi/cdi-edits.ts";
import type { MountTableEntry } from "./mount-propagation.ts";
import type { SeccompArchitecture } from "./seccomp-default.ts";
import type { SeccompProfile } from "./seccomp-file.ts";
import type { SelinuxDefaults, SelinuxLabels } from "./security-labels.ts";
import type { ResolvedUser } from "./user.ts";

export type CgroupLayout = "v1" | "hybrid" | "v2";

/** What an image's config says about the processes it is made for. */
export interface ImageDefaults {
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  /** `KEY=value` entries. */
  readonly env: readonly string[];
  readonly workingDir: string;
  readonly user: string;
  readonly stopSignal: string;
  readonly volumes: readonly string[];
}

/** A CRI mount whose host path was followed to what is really there. */
export interface ResolvedMount {
  readonly mount: cri.Mount;
  /** Real path of `mount.hostPath`, or of where the image is mounted: absolute, without symbolic links. */
  readonly sourcePath: string;
}

/** A device node as a container gets it. */
export interface ResolvedDevice {
  readonly containerPath: string;
  /** Real path of the node on the host. */
  readonly hostPath: string;
  readonly type: "c" | "b" | "p";
  readonly major: number;
  readonly minor: number;
  /** Permission bits of the node on the host. */
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
  /** Letters out of `rwm`; "" is all three, `none` is none. */
  readonly permissions: string;
}

/** What CDI devices change, with all that had to be looked up on the host. */
export interface ResolvedCdi extends Pick<CdiEdits, "env" | "hooks" | "additionalGids" | "intelRdt" | "netDevices"> {
  /** Without an owner of their own they are the container's user's. */
  readonly devices: readonly (Omit<ResolvedDevice, "uid" | "gid"> & Partial<Pick<ResolvedDevice, "uid" | "gid">>)[];
  /** Sources of bind mounts are real paths. */
  readonly mounts: readonly CdiMount[];
}

/** What this machine and this daemon can do; read once at start. */
export interface HostFacts {
  /** `CAP_…` names in the daemon's own bounding set: a container never gets more. */
  readonly capabilities: readonly string[];
  /** The lowest oom_score_adj that the kernel lets us write. */
  readonly oomScoreAdjMin: number;
  readonly seccompSupported: boolean;
  readonly cgroupLayout: CgroupLayout;
  /** Every device node that a privileged container gets; absent is none. */
  readonly devices?: readonly ResolvedDevice[];
  /** Whether the runtime of this container and the kernel know `rro` mounts; absent is no. */
  readonly recursiveReadOnlyMounts?: boolean;
  /** Whether the runtime of this container can map the ids of mounts; absent is no. */
  readonly idMappedMounts?: boolean;
  /** Whether the memory controller counts swap; absent is yes. */
  readonly swapAccounting?: boolean;
  /** Page sizes of the hugetlb controller such as `2MB`; absent is unknown, an empty list is no controller. */
  readonly hugepageSizes?: readonly string[];
  /** Present where a SELinux policy is loaded. */
  readonly selinux?: SelinuxDefaults;
  /** Present where the kernel has AppArmor; `defaultProfile` is the loaded one that RuntimeDefault means. */
  readonly apparmor?: { readonly defaultProfile?: string };
  /** Whether the host's message queues are shown on /dev/mqueue; absent is no. */
  readonly showsMessageQueues?: boolean;
  /** Absent is the architecture this process runs on. */
  readonly architecture?: SeccompArchitecture;
}

/** Paths of the pod's pinned namespaces. An absent one is the host's. */
export interface NamespacePaths {
  /** There where the pod's config has id mappings. */
  readonly user?: string;
  readonly network?: string;
  readonly ipc?: string;
  readonly uts?: string;
}

export type PidNamespace =
  | { readonly kind: "new" }
  | { readonly kind: "host" }
  | { readonly kind: "path"; readonly path: string };

/** Host paths of the files that all containers of a pod share. */
export interface PodFiles {
  readonly resolvConf: string;
  readonly hostname: string;
  readonly hosts?: string;
  readonly shm: string;
  /** Copies with the container's user added, where the image lacks it: see `missingAccounts`. */
  readonly passwd?: string;
  readonly group?: string;
}

export interface CgroupPlace {
  /** As `linux.cgroupsPath` wants it: a path for cgroupfs, `slice:prefix:name` for systemd. */
  readonly path: string;
  readonly layout: CgroupLayout;
}

/** Everything a container's spec is made from. */
export interface ContainerSpecInput {
  readonly id: string;
  readonly config: cri.ContainerConfig;
  readonly sandbox: cri.PodSandboxConfig;
  readonly image: ImageDefaults;
  readonly rootfsPath: string;
  readonly user: ResolvedUser;
  readonly mounts: readonly ResolvedMount[];
  readonly devices: readonly ResolvedDevice[];
  readonly cdi?: ResolvedCdi | undefined;
  /** The host's mounts, to check propagation against; needed where a mount asks for any. */
  readonly mountTable?: readonly MountTableEntry[];
  readonly podFiles: PodFiles;
  readonly namespaces: NamespacePaths & { readonly pid: PidNamespace };
  readonly cgroup: CgroupPlace;
  readonly host: HostFacts;
  readonly hostname: string;
  /** What `buildSelinuxLabels` says; none without SELinux. */
  readonly selinux?: SelinuxLabels | undefined;
  /** The parsed file at `localhostSeccompPath(config)`, where that is not undefined. */
  readonly localhostSeccomp?: SeccompProfile;
}

export interface PauseSpecInput {
  readonly id: string;
  readonly sandbox: cri.PodSandboxConfig;
  readonly rootfsPath: string;
  readonly args: readonly string[];
  readonly namespaces: NamespacePaths;
  readonly cgroup: CgroupPlace;
  readonly host: HostFacts;
  /** As a container's. */
  readonly selinux?: SelinuxLabels | undefined;
}
