import { randomUUID } from "node:crypto";
import { chown, mkdir, stat } from "node:fs/promises";
import { join } from "node:path";

import { Code, CriError } from "../cri-api/index.ts";
import type { ImageHost } from "./host.ts";
import { quote } from "./reference.ts";
import type { RootfsHome, RootfsOwner } from "./rootfs-mount.ts";

/** A volume that a container's image declares. */
export interface DeclaredVolume {
  /** The container's root filesystem, mounted and not in use yet. */
  readonly rootfs: string;
  /** Absolute, as the container is to see it. */
  readonly path: string;
  /** Where on the host it is to be mounted; made if it is absent. */
  readonly target: string;
  readonly owner?: RootfsOwner | undefined;
}

/** Copies what the image has in the volume's place, the folder's own attributes included. */
async function seed(host: ImageHost, volume: DeclaredVolume, folder: string, signal: AbortSignal): Promise<void> {
  const source = await host.resolveInRoot(volume.rootfs, volume.path);
  if (source === undefined) return;
  const what = `image volume ${quote(volume.path)}`;
  if (!(await stat(source)).isDirectory())
    throw new CriError(Code.InvalidArgument, `${what} is no directory of the image`);
  const cp = await host.which("cp");
  if (cp === undefined) throw new CriError(Code.Internal, `${what} cannot be filled: there is no cp`);
  const argv = [cp, "--archive", "--reflink=auto", "--", `${source}/.`, folder] as const;
  const { status, stderr } = await host.run({ argv: [...argv], env: { LC_ALL: "C" }, signal });
  if (status.kind === "exited" && status.code === 0) return;
  const isFull = stderr.includes("No space left on device") || stderr.includes("Disk quota exceeded");
  throw isFull
    ? new CriError(Code.ResourceExhausted, `${what} cannot be filled: no space left`)
    : new CriError(Code.Internal, `${what} cannot be filled`);
}

/** Gives a container a fresh folder for a volume, filled with what the image has there; it goes with the container's home. */
export async function mountDeclaredVolume(
  host: ImageHost,
  home: RootfsHome,
  volume: DeclaredVolume,
  signal: AbortSignal,
): Promise<void> {
  const folder = join(home.declaredVolumes, randomUUID());
  await mkdir(home.declaredVolumes, { recursive: true, mode: 0o700 });
  await mkdir(folder, { mode: 0o755 });
  await chown(folder, volume.owner?.uid ?? 0, volume.owner?.gid ?? 0);
  await seed(host, volume, folder, signal);
  await mkdir(volume.target, { recursive: true, mode: 0o755 });
  await host.bindMount({ source: folder, target: volume.target, propagation: "private" });
}
