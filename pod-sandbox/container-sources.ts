import { readdir, stat } from "node:fs/promises";
import { join, posix } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import { resolveForeignPaths } from "../native/index.ts";
import type { PathInfo, PathRequest } from "../native/index.ts";
import type { ResolvedDevice, ResolvedMount } from "../oci/index.ts";
import { requireLogFile } from "./container-log-path.ts";

interface HostPaths {
  readonly mounts: readonly cri.Mount[];
  readonly devices: readonly cri.Device[];
  readonly logPath: string;
}

interface ResolvedHostPaths {
  readonly mounts: readonly ResolvedMount[];
  readonly devices: readonly ResolvedDevice[];
  /** Whether the log file is there already. */
  readonly hasLog: boolean;
}

/**
 * Looks up all that a container has of the host at once: any path may lie on a file system that hangs. Follows the host
 * paths of mounts, of which a missing one becomes a directory, as both peers do; a device directory stands for every
 * device below it; the log file's place is made clean.
 *
 * @throws {CriError} `InvalidArgument` naming the path that cannot be had, `FailedPrecondition` the log's,
 * `DeadlineExceeded` the first one that does not answer.
 */
export async function resolveHostPaths(signal: AbortSignal, wanted: HostPaths): Promise<ResolvedHostPaths> {
  const { mounts, devices, logPath } = wanted;
  for (const { hostPath } of mounts) requireAbsolute("mount host_path", hostPath);
  const requests: PathRequest[] = [
    ...mounts.map(({ hostPath }) => ({ path: hostPath, want: "folder" }) as const),
    ...devices.map(({ hostPath }) => ({ path: hostPath, want: "look" }) as const),
    ...(logPath === "" ? [] : [{ path: logPath, want: "file" } as const]),
  ];
  const found = await resolveForeignPaths(requests, { signal });
  const devicesAt = mounts.length;
  const logAt = devicesAt + devices.length;
  return {
    mounts: mounts.map((mount, index) => ({ mount, sourcePath: requireFound(mount.hostPath, found[index]).path })),
    devices: await resolveDevices(devices, found.slice(devicesAt, logAt)),
    hasLog: logPath !== "" && requireLogFile(logPath, found[logAt]),
  };
}

async function resolveDevices(
  devices: readonly cri.Device[],
  found: readonly PathInfo[],
): Promise<readonly ResolvedDevice[]> {
  const resolved = await Promise.all(
    devices.map(async (device, index) => {
      const { path, kind } = requireFound(device.hostPath, found[index]);
      if (kind === "directory") requireDeviceDirectory(device.hostPath, path);
      const nodes = kind === "directory" ? await readDevicesBelow(path) : await readDevice(path);
      if (nodes.length > 0 || kind === "directory") return nodes.map((node) => place(device, path, node));
      throw new CriError(Code.InvalidArgument, `"${device.hostPath}" is not a device`);
    }),
  );
  return resolved.flat();
}

/** Elsewhere a walk could take in the whole host, and hang on it. */
function requireDeviceDirectory(hostPath: string, path: string): void {
  if (path.startsWith("/dev/")) return;
  throw new CriError(Code.InvalidArgument, `device directory "${hostPath}" is not below /dev`);
}

/** A device node found on the host. */
type DeviceNode = Omit<ResolvedDevice, "containerPath" | "permissions">;

/** A directory of devices keeps its shape in the container. */
function place(device: cri.Device, root: string, node: DeviceNode): ResolvedDevice {
  const containerPath = posix.join(device.containerPath || device.hostPath, node.hostPath.slice(root.length));
  return { ...node, containerPath, permissions: device.permissions };
}

/** Pseudo terminals, shared memory and the console are each container's own, also a privileged one's. */
const ownDevices = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/tty"];

/** Every device node of the host that is not each container's own, for a privileged container. */
export async function readHostDevices(): Promise<readonly ResolvedDevice[]> {
  const nodes = await readDevicesBelow("/dev");
  return nodes
    .filter(({ hostPath }) => !ownDevices.some((own) => hostPath === own || hostPath.startsWith(`${own}/`)))
    .map((node) => ({ ...node, containerPath: node.hostPath, permissions: "rwm" }));
}

async function readDevicesBelow(directory: string): Promise<readonly DeviceNode[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(ignoreAbsence);
  if (!entries) return [];
  const below = await Promise.all(
    entries.map(async (entry) => {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return await readDevicesBelow(path);
      return entry.isCharacterDevice() || entry.isBlockDevice() ? await readDevice(path) : [];
    }),
  );
  return below.flat();
}

/** One node, or none where the path is no device. */
export async function readDevice(path: string): Promise<readonly DeviceNode[]> {
  const status = await stat(path).catch(ignoreAbsence);
  if (!status?.isCharacterDevice() && !status?.isBlockDevice()) return [];
  const { mode: fileMode, uid, gid, rdev } = status;
  const type = status.isCharacterDevice() ? "c" : "b";
  return [{ hostPath: path, type, ...deviceNumbers(BigInt(rdev)), fileMode, uid, gid }];
}

/** Terminals and loop devices come and go while /dev is read. */
function ignoreAbsence(thrown: NodeJS.ErrnoException): undefined {
  if (thrown.code !== "ENOENT") throw thrown;
}

/** As glibc's gnu_dev_major and gnu_dev_minor take a dev_t apart. */
export function deviceNumbers(device: bigint): { readonly major: number; readonly minor: number } {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

function requireAbsolute(field: string, path: string): void {
  if (posix.isAbsolute(path) && !path.includes("\0")) return;
  throw new CriError(Code.InvalidArgument, `${field} "${path}" is not absolute`);
}

function requireFound(path: string, info: PathInfo | undefined): Exclude<PathInfo, { error: string }> {
  if (info && !("error" in info)) return info;
  const error = info?.error ?? "no answer";
  if (error === "ETIMEDOUT") {
    throw new CriError(Code.DeadlineExceeded, `host path "${path}": its file system does not answer`);
  }
  throw new CriError(Code.InvalidArgument, `host path "${path}": ${error}`);
}
