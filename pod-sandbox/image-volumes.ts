import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Code, CriError, toCriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { RootfsView } from "../image-service/index.ts";
import { resolveInRoot, unmount } from "../native/index.ts";
import type { ResolvedMount } from "../oci/index.ts";
import type { Creation } from "./container-spec.ts";
import type { Host } from "./host.ts";
import type { ContainerPaths } from "./layout.ts";
import { teardownDeadlineMs } from "./undo.ts";

/**
 * Mounts the images that a container has as volumes, for the runtime to take them over: once it has made the container,
 * {@link unmountImageVolumes} may follow, since the container's mount namespace holds them from then on.
 *
 * @throws {CriError} starting with `ImageVolumeMountFailed: `, which users know from kubelet's events.
 */
export async function mountImageVolumes(
  signal: AbortSignal,
  creation: Creation,
  view: RootfsView,
  host: Host,
): Promise<readonly ResolvedMount[]> {
  const { container, paths } = creation;
  const resolved: ResolvedMount[] = [];
  for (const [index, mount] of container.config.mounts.entries()) {
    if (!mount.image) continue;
    try {
      const target = join(paths.volumes, String(index));
      resolved.push({ mount, sourcePath: await mountImageVolume(creation, { mount, target, view, signal }, host) });
    } catch (thrown) {
      const { code, message } = toCriError(thrown);
      throw new CriError(code, `ImageVolumeMountFailed: ${message}`, { cause: thrown });
    }
  }
  return resolved;
}

interface ImageVolume {
  readonly mount: cri.Mount;
  readonly target: string;
  readonly view: RootfsView;
  readonly signal: AbortSignal;
}

/** @returns where on the host the volume, or the part of it that is asked for, is to be taken from. */
async function mountImageVolume(creation: Creation, volume: ImageVolume, host: Host): Promise<string> {
  const { mount, target, view, signal } = volume;
  const name = mount.image?.image ?? "";
  const image = host.images.resolveImage(name);
  if (!image) throw new CriError(Code.NotFound, `image "${name}" not found`);
  const namespace = creation.sandbox.config.metadata?.namespace ?? "";
  const userSpecifiedImage = mount.image?.userSpecifiedImage || name;
  await host.images.requireAllowed({ image, userSpecifiedImage, namespace }, signal);
  await host.images.mountVolume(creation.container.id, image.id, target, view);
  const { imageSubPath } = mount;
  if (imageSubPath === "") return target;
  // The volume cannot be written, so what the path leads to now is what it leads to when the runtime follows it.
  const found = await resolveInRoot(target, imageSubPath);
  if (found) return found;
  const what = image.type === "artifact" ? "OCI artifact volume" : "image volume";
  throw new CriError(Code.InvalidArgument, `sub path "${imageSubPath}" does not exist in ${what} "${name}"`);
}

/** Takes what is left of them off the host. Idempotent. */
export async function unmountImageVolumes({ volumes }: ContainerPaths): Promise<void> {
  const signal = AbortSignal.timeout(teardownDeadlineMs);
  for (const name of await readdir(volumes).catch(() => [])) await unmount(join(volumes, name), { signal });
}
