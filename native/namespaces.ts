import { Socket } from "node:net";
import { getMachine, type Machine, writable } from "./events.ts";
import { runHelper } from "./helper.ts";
import { check, errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

/** The kinds of namespace that a pod keeps without a process. */
export type NamespaceKind = "net" | "ipc" | "uts";

const kindFlags: Readonly<Record<NamespaceKind, number>> = {
  uts: 0x0400_0000,
  ipc: 0x0800_0000,
  net: 0x4000_0000,
};

/* As Kubernetes' SysctlContainSlashFmt: no segment can be empty or "..". */
const sysctlSegment = "[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?";
const sysctlPattern = new RegExp(`^${sysctlSegment}(?:[./]${sysctlSegment})*$`, "i");
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const controlCharacter = /[\x00-\x08\x0a-\x1f\x7f]/;

/**
 * Where a sysctl lies. The first separator decides, as for sysctl(8): `net.ipv4.conf.eth0/1.rp_filter` and
 * `net/ipv4/conf/eth0.1/rp_filter` are the same.
 * @throws {SyscallError} EINVAL
 */
export function sysctlPath(key: string): string {
  if (!sysctlPattern.test(key)) throw new SyscallError("sysctl", errno.EINVAL, key);
  const isSlashed = key.search("/") >= 0 && (key.search(/\./) < 0 || key.indexOf("/") < key.indexOf("."));
  const path = isSlashed ? key : key.replace(/[./]/g, (separator) => (separator === "." ? "/" : "."));
  return `/proc/sys/${path}`;
}

function flattenSysctls(sysctls: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(sysctls).flatMap(([key, value]) => {
    if (controlCharacter.test(value)) throw new SyscallError("sysctl", errno.EINVAL, key);
    return [sysctlPath(key), value];
  });
}

/**
 * Makes new namespaces and keeps each by a bind mount on `directory/net`, `/ipc`, `/uts`, which must not exist yet. The
 * loopback of a new network is up; sysctls and hostname are set inside before anybody can enter. All or nothing.
 *
 * @throws {SyscallError} `sysctl` with the path of the sysctl that the kernel refused; EEXIST, …
 */
export async function pinNamespaces(pins: {
  readonly directory: string;
  readonly kinds: readonly NamespaceKind[];
  readonly hostname?: string;
  readonly sysctls?: Readonly<Record<string, string>>;
  /** Path of a pinned user namespace, to which the new ones then belong. */
  readonly userNamespace?: string;
}): Promise<void> {
  const directory = requireAbsolute("unshare", pins.directory);
  const kinds = pins.kinds.reduce((flags, kind) => flags | kindFlags[kind], 0);
  const sysctls = flattenSysctls(pins.sysctls ?? {});
  if (kinds === 0) return;
  if (pins.userNamespace === undefined) {
    await getMachine().job("slow", directory, (addon, token) =>
      addon.pinNamespaces(token, directory, pins.hostname ?? null, kinds, sysctls),
    );
  } else {
    const userNamespace = requireAbsolute("setns", pins.userNamespace);
    await runPinning(["pin", userNamespace, directory, String(kinds), pins.hostname ?? "", ...sysctls], directory);
  }
}

/** Entering a user namespace takes a process with one thread, which the helper is and this process is not. */
async function runPinning(args: readonly string[], subject: string): Promise<void> {
  await runHelper("namespace", args, { input: Buffer.alloc(0), subject, signal: new AbortController().signal });
}

/** A range of ids: `size` of them from `containerId` inside are those from `hostId` outside. */
export interface IdMapping {
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

function isId(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff;
}

function formatMappings(mappings: readonly IdMapping[]): string {
  for (const { containerId, hostId, size } of mappings)
    if (![containerId, hostId, size].every(isId)) throw new SyscallError("uid_map", errno.EINVAL);
  return mappings.map(({ containerId, hostId, size }) => `${containerId} ${hostId} ${size}\n`).join("");
}

/**
 * Makes a user namespace with these mappings and keeps it by a bind mount on `path`, which must not exist yet.
 * `unpinNamespace` lets it go.
 *
 * @throws {SyscallError} `uid_map` or `gid_map` EINVAL for mappings the kernel refuses; EEXIST, …
 * @see https://man7.org/linux/man-pages/man7/user_namespaces.7.html
 */
export async function pinUserNamespace(pin: {
  readonly path: string;
  readonly uidMappings: readonly IdMapping[];
  readonly gidMappings: readonly IdMapping[];
}): Promise<void> {
  const path = requireAbsolute("mount", pin.path);
  const maps = [formatMappings(pin.uidMappings), formatMappings(pin.gidMappings)];
  await runPinning(["user-namespace", path, ...maps], path);
}

/** Lets a pinned namespace go and removes its file. Idempotent. @throws {SyscallError} */
export async function unpinNamespace(path: string): Promise<void> {
  await getMachine().job("slow", path, (addon, token) => addon.unpinNamespace(token, requireAbsolute("umount2", path)));
}

async function finishConnect({ addon, watch }: Machine, fd: number, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal.reason as Error);
  const connecting = watch(fd, writable, resolve);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    signal.throwIfAborted();
    await promise;
    check("connect", addon.socketError(fd));
  } catch (thrown) {
    connecting.stop();
    addon.close(fd);
    throw thrown;
  } finally {
    connecting.stop();
    signal.removeEventListener("abort", onAbort);
  }
  return new Socket({ fd, readable: true, writable: true });
}

/**
 * Connects by TCP inside another network namespace; the socket then works like any other. `localhost` is 127.0.0.1, then
 * ::1.
 * @throws {SyscallError} ECONNREFUSED, …; EINVAL if `host` is no address
 * @throws `signal.reason`
 */
export async function connectInNamespace(
  netnsPath: string,
  address: { readonly host: string; readonly port: number },
  options: { readonly signal: AbortSignal },
): Promise<Socket> {
  const machine = getMachine();
  const hosts = address.host === "localhost" ? ["127.0.0.1", "::1"] : [address.host];
  let refusal: unknown;
  for (const host of hosts) {
    options.signal.throwIfAborted();
    try {
      const { value } = await machine.job("slow", netnsPath, (addon, token) =>
        addon.connectInNamespace(token, requireAbsolute("open", netnsPath), host, address.port),
      );
      return await finishConnect(machine, value, options.signal);
    } catch (thrown) {
      options.signal.throwIfAborted();
      refusal ??= thrown;
    }
  }
  throw refusal;
}
