import type { cri } from "../../cri-api/index.ts";
import type { ResolvedDevice } from "./input.ts";
import { invalid, quote } from "./invalid.ts";
import type { OciDevice, OciDeviceRule, OciMount } from "./oci-types.ts";
import { cleanAbsolutePath, isAtOrBelow } from "./text.ts";

/** @throws {CriError} `InvalidArgument` for what no device can be. No container path means the host's. */
export function validateDevice({ containerPath, hostPath, permissions }: cri.Device): void {
  const destination = cleanAbsolutePath("device container_path", containerPath || hostPath);
  cleanAbsolutePath("device host_path", hostPath);
  if (destination === "/") throw invalid("device container_path is the root itself");
  if (!/^[rwm]*$/.test(permissions)) {
    throw invalid(`device ${quote(containerPath)}: permissions ${quote(permissions)} are not letters out of "rwm"`);
  }
}

/** Pseudo terminals, shared memory and the console belong to each container itself, also to a privileged one. */
function isSharedDevice({ containerPath: path }: ResolvedDevice): boolean {
  const own = ["/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/ptmx", "/dev/tty"];
  return !own.some((directory) => isAtOrBelow(path, directory));
}

export interface DeviceSection {
  readonly devices: readonly OciDevice[];
  readonly mounts: readonly OciMount[];
  readonly rules: readonly OciDeviceRule[];
}

/**
 * Nodes to make and what the device cgroup lets through. The runtime adds /dev/null and its like by itself. A
 * privileged container gets the host's nodes and no rule. With a host's directory mounted on /dev no node is made:
 * the runtime would make it on the host. In a user namespace nobody can make nodes: the host's are bound there.
 */
export function buildDevices(
  requested: readonly ResolvedDevice[],
  host: {
    readonly isPrivileged: boolean;
    readonly devices: readonly ResolvedDevice[];
    readonly hasDevMount: boolean;
    readonly hasUserNamespace: boolean;
  },
): DeviceSection {
  const wanted = [...(host.isPrivileged ? host.devices.filter(isSharedDevice) : []), ...requested];
  const byPath = new Map(wanted.map((device) => [device.containerPath, device]));
  const all = [...byPath.values()];
  const nodes = host.hasDevMount ? all.filter(({ containerPath }) => !isAtOrBelow(containerPath, "/dev")) : all;
  return {
    devices: host.hasUserNamespace ? [] : nodes.map(toOciDevice),
    mounts: host.hasUserNamespace ? nodes.map(toDeviceMount) : [],
    rules: host.isPrivileged
      ? [{ allow: true, access: "rwm" }]
      : [{ allow: false, access: "rwm" }, ...requested.flatMap(toRules)],
  };
}

function toOciDevice({ containerPath, type, major, minor, fileMode, uid, gid }: ResolvedDevice): OciDevice {
  const numbers = type === "p" ? {} : { major, minor };
  return { path: containerPath, type, ...numbers, fileMode: fileMode & 0o777, uid, gid };
}

function toDeviceMount({ containerPath, hostPath }: ResolvedDevice): OciMount {
  return {
    destination: containerPath,
    type: "bind",
    source: hostPath,
    options: ["bind", "rprivate", "nosuid", "noexec"],
  };
}

function toRules({ type, major, minor, permissions }: ResolvedDevice): readonly OciDeviceRule[] {
  if (type === "p" || permissions === "none") return [];
  const access = ["r", "w", "m"].filter((letter) => permissions === "" || permissions.includes(letter)).join("");
  return [{ allow: true, type, major, minor, access }];
}
