import { access, chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";

/** Where the room keeps what. Directories below `root` outlive a reboot, those below `state` do not. */
export interface Layout {
  readonly sandboxRecords: string;
  readonly containerRecords: string;
  readonly sandboxes: string;
  readonly containers: string;
  readonly pauseRootfs: string;
}

export function layoutOf(root: string, state: string): Layout {
  return {
    sandboxRecords: join(root, "pod-sandboxes"),
    containerRecords: join(root, "containers"),
    sandboxes: join(state, "pod-sandboxes"),
    containers: join(state, "containers"),
    pauseRootfs: join(state, "pause"),
  };
}

/** Makes the directories. Those on the way to root filesystems let the root of a user namespace through, who is nobody here. */
export async function makeDirectories(layout: Layout): Promise<void> {
  for (const directory of Object.values(layout)) await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const directory of [layout.sandboxes, layout.containers]) await chmod(directory, 0o711);
}

/** Files and mounts of one pod sandbox, found again by its id alone. */
export interface SandboxPaths {
  readonly directory: string;
  readonly namespaces: string;
  readonly userns: string;
  readonly netns: string;
  readonly ipcns: string;
  readonly utsns: string;
  readonly shm: string;
  readonly resolvConf: string;
  readonly hostname: string;
  readonly hosts: string;
  readonly pauseBundle: string;
}

export function sandboxPathsOf(layout: Layout, id: string): SandboxPaths {
  const directory = join(layout.sandboxes, id);
  const namespaces = join(directory, "ns");
  return {
    directory,
    namespaces,
    userns: join(namespaces, "user"),
    netns: join(namespaces, "net"),
    ipcns: join(namespaces, "ipc"),
    utsns: join(namespaces, "uts"),
    shm: join(directory, "shm"),
    resolvConf: join(directory, "resolv.conf"),
    hostname: join(directory, "hostname"),
    hosts: join(directory, "hosts"),
    pauseBundle: join(directory, "pause"),
  };
}

/** The OCI bundle of one container, found again by its id alone. */
export interface ContainerPaths {
  readonly bundle: string;
  readonly rootfs: string;
  /** Images that are its volumes are mounted below, until the runtime has them. */
  readonly volumes: string;
}

export function containerPathsOf(layout: Layout, id: string): ContainerPaths {
  const bundle = join(layout.containers, id);
  return { bundle, rootfs: join(bundle, "rootfs"), volumes: join(bundle, "volumes") };
}

export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
