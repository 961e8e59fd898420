import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { StoredImage } from "../image-service/index.ts";
import { readFileBounded, readFileInRoot, readMountTable } from "../native/index.ts";
import {
  buildContainerSpec,
  localhostSeccompPath,
  missingAccounts,
  parseSeccompProfile,
  podIdMaps,
  resolveUser,
} from "../oci/index.ts";
import type {
  ContainerSpecInput,
  PidNamespace,
  PodFiles,
  ResolvedCdi,
  ResolvedDevice,
  ResolvedMount,
  ResolvedUser,
  Runtime,
  SelinuxLabels,
  Spec,
} from "../oci/index.ts";
import { readHostDevices } from "./container-sources.ts";
import type { ContainerIn } from "./container.ts";
import { cgroupsPathOf } from "./host.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import type { ContainerPaths } from "./layout.ts";
import { usesHostNetwork } from "./network.ts";
import { hostnameOf, namespaceOptionsOf } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { giveToPodRoot } from "./user-namespace.ts";

/** Password files larger than this are no password files (CVE-2025-4437). */
const maxPasswdBytes = 1024 * 1024;
const maxProfileBytes = 4 * 1024 * 1024;

/** One CreateContainer at work: what was asked, and what it was asked of. */
export interface Creation {
  readonly container: ContainerIn<"creating">;
  readonly sandbox: SandboxIn<"ready">;
  readonly image: StoredImage;
  readonly runtime: Runtime;
  readonly paths: ContainerPaths;
}

/** What had to be looked up on the host and in the image's root filesystem. */
export interface Sources {
  readonly mounts: readonly ResolvedMount[];
  readonly devices: readonly ResolvedDevice[];
  readonly cdi: ResolvedCdi | undefined;
  readonly user: ResolvedUser;
  readonly selinux: SelinuxLabels | undefined;
  /** Password files with the user added, where the image's lack it. */
  readonly accounts: Pick<PodFiles, "passwd" | "group">;
  readonly pid: PidNamespace;
}

/** Who the process runs as, and password files that know of him where the image's do not. */
export async function lookUpUser({
  container,
  sandbox,
  image,
  paths,
}: Creation): Promise<Pick<Sources, "user" | "accounts">> {
  const [passwd, group] = await Promise.all([
    readFileInRoot(paths.rootfs, "/etc/passwd", { maxBytes: maxPasswdBytes }),
    readFileInRoot(paths.rootfs, "/etc/group", { maxBytes: maxPasswdBytes }),
  ]);
  const user = resolveUser({ passwd, group }, container.config.linux?.securityContext ?? null, image.config.user);
  const missing = missingAccounts({ passwd, group }, user, "/");
  const accounts = await writeAccounts(missing, paths.bundle);
  await giveToPodRoot(
    sandbox.config,
    accounts.map(([, path]) => path),
  );
  return { user, accounts: Object.fromEntries(accounts) };
}

async function writeAccounts(
  missing: ReturnType<typeof missingAccounts>,
  bundle: string,
): Promise<readonly (readonly [string, string])[]> {
  return await Promise.all(
    Object.entries(missing).map(async ([name, text]) => {
      const path = join(bundle, name);
      await writeFile(path, text, { mode: 0o644 });
      return [name, path] as const;
    }),
  );
}

/** The config.json of a container. @throws {CriError} `InvalidArgument`, `FailedPrecondition`. */
export async function buildSpec(creation: Creation, { accounts, pid, ...sources }: Sources, host: Host): Promise<Spec> {
  const { container, sandbox, image, paths } = creation;
  const pod = sandboxPathsOf(host.layout, sandbox.id);
  const sharesHostIpc = namespaceOptionsOf(sandbox.config).ipc === "NODE";
  const isHostNetwork = usesHostNetwork(sandbox.config);
  const isPrivileged = container.config.linux?.securityContext?.privileged ?? false;
  return buildContainerSpec({
    id: container.id,
    config: container.config,
    sandbox: sandbox.config,
    image: image.config,
    ...(await localhostSeccompFor(container.config)),
    rootfsPath: paths.rootfs,
    ...sources,
    ...(await mountTableFor(container.config)),
    podFiles: {
      resolvConf: pod.resolvConf,
      hostname: pod.hostname,
      hosts: pod.hosts,
      shm: sharesHostIpc ? "/dev/shm" : pod.shm,
      ...accounts,
    },
    namespaces: {
      ...(podIdMaps(sandbox.config) ? { user: pod.userns } : {}),
      ...(isHostNetwork ? {} : { network: pod.netns, uts: pod.utsns }),
      ...(sharesHostIpc ? {} : { ipc: pod.ipcns }),
      pid,
    },
    cgroup: {
      path: cgroupsPathOf(host, sandbox.config.linux?.cgroupParent ?? "", container.id),
      layout: host.facts.cgroupLayout,
    },
    host: {
      ...host.facts,
      ...(isPrivileged ? { devices: await readHostDevices() } : {}),
      recursiveReadOnlyMounts: creation.runtime.features.recursiveReadOnlyMounts,
      idMappedMounts: creation.runtime.features.userNamespaces,
    },
    hostname: hostnameOf(sandbox),
  });
}

/** Read only where a mount asks for propagation: a node has thousands of mounts. */
async function mountTableFor(config: cri.ContainerConfig): Promise<Pick<ContainerSpecInput, "mountTable">> {
  const isNeeded = config.mounts.some((mount) => mount.propagation !== "PROPAGATION_PRIVATE");
  return isNeeded ? { mountTable: await readMountTable() } : {};
}

/** @throws {CriError} `InvalidArgument` for a profile that cannot be read or understood. */
async function localhostSeccompFor(config: cri.ContainerConfig): Promise<Pick<ContainerSpecInput, "localhostSeccomp">> {
  const path = localhostSeccompPath(config);
  if (path === undefined) return {};
  const text = await readFileBounded(path, maxProfileBytes).catch(() => undefined);
  if (!text) throw new CriError(Code.InvalidArgument, `localhost seccomp profile "${path}" cannot be read`);
  return { localhostSeccomp: parseSeccompProfile(text) };
}
