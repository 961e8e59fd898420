import { randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, rm, rmdir } from "node:fs/promises";
import path from "node:path";

/** Everything that one daemon under test reads and writes, in one throwaway folder. */
export interface Workspace extends AsyncDisposable {
  readonly directory: string;
  readonly root: string;
  readonly state: string;
  readonly temporary: string;
  readonly logs: string;
  readonly cniConfDir: string;
  readonly cniCacheDir: string;
  readonly ipamDir: string;
  /** The cgroup that all pods of this workspace are asked to live under; unique on the machine. */
  readonly cgroupParent: string;
  readonly bridge: string;
}

/** Makes the folder. It is under /var/tmp because overlayfs needs an upper layer on a real file system. */
export async function createWorkspace(): Promise<Workspace> {
  const directory = await mkdtemp("/var/tmp/berth-e2e-");
  await chmod(directory, 0o711); // as /run and /var/lib: a pod's own root, who is nobody here, passes through
  const at = (name: string): string => path.join(directory, name);
  const workspace = {
    directory,
    root: at("root"),
    state: at("state"),
    temporary: at("tmp"),
    logs: at("logs"),
    cniConfDir: at("cni/net.d"),
    cniCacheDir: at("cni/cache"),
    ipamDir: at("cni/ipam"),
    cgroupParent: `/berth-e2e-${randomBytes(4).toString("hex")}`,
    bridge: `berth${randomBytes(3).toString("hex")}`,
    async [Symbol.asyncDispose](): Promise<void> {
      await removeCgroups(workspace.cgroupParent);
      await rm(directory, { recursive: true, force: true });
    },
  };
  for (const name of ["tmp", "logs", "cni/net.d", "cni/cache/results", "cni/ipam"])
    await mkdir(at(name), { recursive: true });
  return workspace;
}

/** Removes the parent cgroup, as kubelet would remove its own, from every hierarchy; fails if anything is in it. */
async function removeCgroups(cgroupParent: string): Promise<void> {
  const hierarchies = ["", ...(await readdir("/sys/fs/cgroup"))];
  for (const hierarchy of hierarchies) {
    await rmdir(path.join("/sys/fs/cgroup", hierarchy, cgroupParent)).catch((thrown: unknown) => {
      const code = thrown instanceof Error && "code" in thrown ? thrown.code : "";
      if (code !== "ENOENT" && code !== "ENOTDIR") throw thrown;
    });
  }
}
