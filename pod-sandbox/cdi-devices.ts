import { Code, CriError } from "../cri-api/index.ts";
import { resolveForeignPaths } from "../native/index.ts";
import { cdiDeviceNames, isBindMount } from "../oci/index.ts";
import type { CdiRegistry, ResolvedCdi } from "../oci/index.ts";
import { readDevice } from "./container-sources.ts";
import type { Creation } from "./container-spec.ts";
import { usesHostNetwork } from "./network.ts";

type CdiEdits = Awaited<ReturnType<CdiRegistry["resolve"]>>;
type CdiDeviceNode = CdiEdits["deviceNodes"][number];

/**
 * What the CDI devices of a container change in it, with the nodes and mount sources of the host looked up; undefined
 * for a container without any.
 *
 * @throws {CriError} `FailedPrecondition` for a device that no file describes, or whose files tell of what is not there.
 */
export async function resolveCdiDevices(
  signal: AbortSignal,
  creation: Pick<Creation, "container" | "sandbox" | "runtime">,
  registry: CdiRegistry,
): Promise<ResolvedCdi | undefined> {
  const names = cdiDeviceNames(creation.container.config);
  if (names.length === 0) return undefined;
  const { env, hooks, additionalGids, intelRdt, netDevices, deviceNodes, mounts } = await registry.resolve(names);
  if (netDevices.length > 0) requireMovable(netDevices, creation);
  const binds = mounts.filter(isBindMount);
  const [devices, sources] = await Promise.all([
    Promise.all(deviceNodes.map((node) => resolveNode(node))),
    resolveForeignPaths(
      binds.map(({ hostPath }) => ({ path: requireAbsolute(hostPath), want: "look" as const })),
      { signal },
    ),
  ]);
  const places = new Map(
    binds.map((bind, index) => {
      const source = sources[index];
      if (source && !("error" in source)) return [bind, source.path] as const;
      throw injectionFailure(`mount source "${bind.hostPath}": ${source?.error ?? "no answer"}`);
    }),
  );
  return {
    env,
    hooks,
    additionalGids: additionalGids.filter((gid) => gid !== 0),
    intelRdt,
    netDevices,
    devices,
    mounts: mounts.map((mount) => ({ ...mount, hostPath: places.get(mount) ?? mount.hostPath })),
  };
}

/** A runtime that does not know network devices would leave them out, and say nothing. */
function requireMovable(
  devices: CdiEdits["netDevices"],
  { runtime, sandbox }: Pick<Creation, "sandbox" | "runtime">,
): void {
  const list = devices.map(({ hostInterfaceName }) => hostInterfaceName).join(", ");
  if (!runtime.features.networkDevices)
    throw injectionFailure(`runtime handler "${runtime.handler}" cannot move network devices: ${list}`);
  if (usesHostNetwork(sandbox.config))
    throw injectionFailure(`a pod on the host's network takes no network devices: ${list}`);
  for (const end of ["hostInterfaceName", "name"] as const) {
    const names = new Set(devices.map((device) => device[end]));
    if (names.size < devices.length) throw injectionFailure(`two network devices of one ${end}: ${list}`);
  }
}

/** Read and write for everybody: what the device cgroup lets through decides. */
const openMode = 0o666;

type Node = ResolvedCdi["devices"][number];

async function resolveNode(node: CdiDeviceNode): Promise<Node> {
  const { path: containerPath, hostPath = containerPath, permissions, uid, gid } = node;
  const owner = { ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) };
  return { containerPath, hostPath, permissions, ...owner, ...(await kindOf(node, hostPath)) };
}

/** A node described whole need not be on the host; of any other the rest is what the host's is. */
async function kindOf(
  node: CdiDeviceNode,
  hostPath: string,
): Promise<Pick<Node, "type" | "major" | "minor" | "fileMode">> {
  const type = node.type === "u" ? "c" : node.type || undefined;
  const { major = 0, minor = 0, fileMode } = node;
  if (type === "p" || (type !== undefined && major > 0)) return { type, major, minor, fileMode: fileMode ?? openMode };
  const [found] = await readDevice(hostPath);
  if (!found) throw injectionFailure(`"${hostPath}" is not a device`);
  if (type !== undefined && type !== found.type) throw injectionFailure(`"${hostPath}" is not of type ${type}`);
  return { type: found.type, major: found.major, minor: found.minor, fileMode: fileMode ?? found.fileMode };
}

function requireAbsolute(path: string): string {
  if (path.startsWith("/") && !path.includes("\0")) return path;
  throw injectionFailure(`mount source "${path}" is not an absolute path`);
}

function injectionFailure(why: string): CriError {
  return new CriError(Code.FailedPrecondition, `CDI device injection failed: ${why}`);
}
