import { join, posix } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { RootfsView, StoredImage } from "../image-service/index.ts";
import { mkdirInRoot, SyscallError } from "../native/index.ts";
import type { ResolvedMount } from "../oci/index.ts";
import type { Creation } from "./container-spec.ts";
import type { Host } from "./host.ts";
import { podRootOf } from "./user-namespace.ts";

/**
 * What becomes of the volumes that an image declares: a directory in the container's root filesystem, a directory on
 * the host that is the container's own, or nothing.
 */
export type ImageVolumes = "mkdir" | "bind" | "ignore";

const maxVolumes = 128;
/** The kernel's and the runtime's own, where an image has nothing to say. */
const systemTrees = ["/", "/proc", "/sys", "/dev"];

/**
 * Volumes that the image declares and no mount of the container takes the place of.
 *
 * @throws {CriError} `InvalidArgument` for more than 128.
 */
export function declaredVolumes(image: Pick<StoredImage, "config">, mounts: readonly cri.Mount[]): readonly string[] {
  const clean = (path: string): string => posix.join("/", path, ".").replace(/(.)\/$/, "$1");
  const isSystem = (path: string): boolean =>
    systemTrees.some((tree) => path === tree || (tree !== "/" && path.startsWith(`${tree}/`)));
  const taken = new Set(mounts.map(({ containerPath }) => clean(containerPath)));
  const paths = [...new Set(image.config.volumes.map(clean))].filter((path) => !taken.has(path) && !isSystem(path));
  if (paths.length <= maxVolumes) return paths;
  throw new CriError(Code.InvalidArgument, `the image declares more than ${maxVolumes} volumes`);
}

const notAFolder: readonly string[] = ["ENOTDIR", "ELOOP", "EINVAL", "ENAMETOOLONG"];

/**
 * Makes a folder in the root filesystem where the image lacks it.
 *
 * @throws {CriError} `InvalidArgument` where the image has something else in its place.
 */
export async function makeFolder({ paths, sandbox }: Creation, what: string, path: string): Promise<void> {
  try {
    await mkdirInRoot(paths.rootfs, path, { mode: 0o755, ...podRootOf(sandbox.config) });
  } catch (thrown) {
    if (!(thrown instanceof SyscallError) || !notAFolder.includes(thrown.code)) throw thrown;
    const text = `${what} "${path}" is no directory of the image (${thrown.code})`;
    throw new CriError(Code.InvalidArgument, text, { cause: thrown });
  }
}

function mountAt(containerPath: string): cri.Mount {
  return {
    containerPath,
    hostPath: "",
    readonly: false,
    selinuxRelabel: true,
    propagation: "PROPAGATION_PRIVATE",
    uidMappings: [],
    gidMappings: [],
    recursiveReadOnly: false,
    image: null,
    imageSubPath: "",
    mountOptions: [],
  };
}

/** Provides the volumes that the image declares, as the configuration has it. @returns what is to be mounted of them. */
export async function provideDeclaredVolumes(
  signal: AbortSignal,
  creation: Creation,
  view: RootfsView,
  host: Host,
): Promise<readonly ResolvedMount[]> {
  const { imageVolumes } = host.config;
  const { container, image, paths } = creation;
  const resolved: ResolvedMount[] = [];
  for (const [index, path] of declaredVolumes(image, container.config.mounts).entries()) {
    if (imageVolumes === "mkdir") await makeFolder(creation, "image volume", path);
    if (imageVolumes !== "bind") continue;
    const target = join(paths.volumes, `declared-${index}`);
    const volume = { rootfs: paths.rootfs, path, target, owner: view.owner };
    await host.images.mountDeclaredVolume(container.id, volume, signal);
    resolved.push({ mount: mountAt(path), sourcePath: target });
  }
  return resolved;
}
