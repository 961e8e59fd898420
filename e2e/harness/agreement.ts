import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { cri } from "../../cri-api/index.ts";
import type { CriClient } from "./cri-client.ts";
import type { Daemon } from "./daemon.ts";
import { compareTraces, findTraces, type Traces } from "./leaks.ts";
import { isOfNode } from "./network.ts";
import type { Workspace } from "./workspace.ts";

/** What the daemon says there is. */
interface Answers {
  readonly pods: readonly { readonly status: cri.PodSandboxStatus; readonly listed: cri.PodSandboxState }[];
  readonly containers: readonly { readonly status: cri.ContainerStatus; readonly pid: number }[];
}

/** For what a daemon clears in the background, on a machine that does much else. */
const patienceMs = 20_000;

/**
 * Whether List, Status and the kernel tell the same story, and nothing is there that no record explains. For a daemon
 * that no call is at work in; what it clears in the background after its start is waited for.
 *
 * @param empty What was there before the first pod.
 * @returns the contradictions, a line each.
 */
export async function findContradictions(daemon: Daemon, empty: Traces): Promise<readonly string[]> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const found = await compareOnce(daemon, empty);
    if (found.length === 0 || Date.now() > deadline) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function compareOnce(daemon: Daemon, empty: Traces): Promise<readonly string[]> {
  const { client, workspace } = daemon;
  const answers = await askAll(client);
  const ids = new Set([
    ...answers.pods.map(({ status }) => status.id),
    ...answers.containers.map(({ status }) => status.id),
  ]);
  const [traces, members] = await Promise.all([findTraces({ workspace, ids }), findMembers(workspace)]);
  const [leases, records] = await Promise.all([readLeases(workspace), readLayerRecords(workspace)]);
  return [
    ...findOrphans({ empty, traces, ids, leases, records, daemon }),
    ...answers.pods.flatMap((pod) => doubtPod(pod, traces, leases)),
    ...answers.containers.flatMap((container) => doubtContainer(container, members)),
    ...(await Promise.all(answers.containers.map(doubtLimit))).flat(),
    ...doubtLeases(leases, answers, traces),
  ];
}

async function askAll(client: CriClient): Promise<Answers> {
  const { items } = await client.call("ListPodSandbox");
  const { containers } = await client.call("ListContainers");
  const pods = items.map(async ({ id, state }) => {
    const { status } = await client.call("PodSandboxStatus", { podSandboxId: id });
    if (status === null) throw new Error(`no status of pod sandbox ${id}`);
    return { status, listed: state };
  });
  const statuses = containers.map(async ({ id }) => {
    const { status, info } = await client.call("ContainerStatus", { containerId: id, verbose: true });
    if (status === null) throw new Error(`no status of container ${id}`);
    return { status, pid: (JSON.parse(info["info"] ?? "{}") as { pid: number }).pid };
  });
  return { pods: await Promise.all(pods), containers: await Promise.all(statuses) };
}

/** Processes by the id that their cgroup is named after. */
async function findMembers(workspace: Workspace): Promise<ReadonlyMap<string, readonly number[]>> {
  const members = new Map<string, number[]>();
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/u.test(name))) {
    const cgroups = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    const id = cgroups.includes(workspace.cgroupParent) ? /berth-([0-9a-f]{64})/u.exec(cgroups)?.[1] : undefined;
    if (id !== undefined) members.set(id, [...(members.get(id) ?? []), Number(pid)]);
  }
  return members;
}

/** The pod that each address is lent to. */
async function readLeases(workspace: Workspace): Promise<ReadonlyMap<string, string>> {
  const entries = await readdir(workspace.ipamDir, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && /^[\d.]+$/u.test(entry.name));
  const leases = files.map(async ({ name, parentPath }) => {
    const text = await readFile(path.join(parentPath, name), "utf8").catch(() => "");
    return [name, text.split(/\s/u)[0] ?? ""] as const;
  });
  return new Map(await Promise.all(leases));
}

interface Scene {
  readonly empty: Traces;
  readonly traces: Traces;
  readonly ids: ReadonlySet<string>;
  readonly leases: ReadonlyMap<string, string>;
  readonly records: string;
  readonly daemon: Daemon;
}

/** Names that writes and removals have while they are under way. */
const halfWay = /\.tmp$|\.new$|\/\.[^/]*\/?$|\/layers\/\./u;

function findOrphans({ empty, traces, ids, leases, records, daemon }: Scene): readonly string[] {
  const isKnown = (text: string): boolean => [...ids].some((id) => text.includes(id));
  const addresses = new Set([...leases].flatMap(([ip, id]) => (ids.has(id) ? [ip] : [])));
  const isLent = (line: string): boolean => (line.match(/10\.88\.[\d.]+/gu) ?? []).some((ip) => addresses.has(ip));
  const chains = new Set(traces.firewall.filter(isLent).flatMap(chainsOf));
  const isExplained = (line: string): boolean => {
    if (isOfNode(daemon.workspace, line)) return true;
    if (line.startsWith(`processes: ${daemon.pid} `)) return true;
    if (line.startsWith("files: ") && halfWay.test(line)) return false;
    if (line.startsWith(`files: ${path.join(daemon.workspace.root, "images")}/`)) return true;
    const layer = /\/layers\/(sha256)-([0-9a-f]{64})\//u.exec(line);
    if (layer) return records.includes(`${layer[1]}:${layer[2]}`);
    // By their number only: what belongs to whom is told by the leases.
    if (/^(?:links: veth|leases: )/u.test(line)) return true;
    return isKnown(line) || chainsOf(line).some((chain) => chains.has(chain));
  };
  return compareTraces(empty, traces)
    .filter((line) => !isExplained(line))
    .map((line) => `orphan: ${line}`);
}

/** Everything that says which layers it stands on: images, and the root filesystems of containers. */
async function readLayerRecords({ root }: Workspace): Promise<string> {
  const names = async (folder: string, suffix: string): Promise<string[]> =>
    (await readdir(path.join(root, folder)).catch(() => [])).map((name) => path.join(root, folder, name, suffix));
  const files = [...(await names("images", "")), ...(await names("containers", "rootfs.json"))];
  return (await Promise.all(files.map((file) => readFile(file, "utf8").catch(() => "")))).join("");
}

/** The plugins name a pod's chains after a hash, portmap after the beginning of the bridge's. */
function chainsOf(line: string): readonly string[] {
  return Array.from(line.matchAll(/CNI-(?:DN-)?([0-9a-f]{20})/gu), ([, hash = ""]) => hash);
}

function doubtPod(
  pod: Answers["pods"][number],
  traces: Traces,
  leases: ReadonlyMap<string, string>,
): readonly string[] {
  const { status, listed } = pod;
  const doubts: string[] = [];
  if (status.state !== listed) doubts.push(`pod ${status.id} is listed as ${listed}, its status is ${status.state}`);
  if (status.state !== "SANDBOX_READY") return doubts;
  const ip = status.network?.ip ?? "";
  if (leases.get(ip) !== status.id) doubts.push(`address ${ip} of pod ${status.id} is lent to ${leases.get(ip)}`);
  if (!traces.mounts.some((line) => line.includes(`${status.id}/ns/net `))) {
    doubts.push(`pod ${status.id} is ready without a network namespace`);
  }
  return doubts;
}

function doubtContainer(
  { status, pid }: Answers["containers"][number],
  members: ReadonlyMap<string, readonly number[]>,
): readonly string[] {
  const processes = members.get(status.id) ?? [];
  if (status.state === "CONTAINER_EXITED") {
    return processes.length === 0 ? [] : [`container ${status.id} has exited and has processes ${processes.join(" ")}`];
  }
  return processes.includes(pid) ? [] : [`container ${status.id} is ${status.state} without its process ${pid}`];
}

/** What a cgroup without a limit says is out of any machine's reach. */
const leastUnlimited = 1n << 60n;

async function doubtLimit({ status, pid }: Answers["containers"][number]): Promise<readonly string[]> {
  const cgroups = pid > 0 ? await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "") : "";
  const [, hierarchy, group] = /^\d+:(memory|):(.*berth-.*)$/mu.exec(cgroups) ?? [];
  if (hierarchy === undefined || group === undefined) return [];
  const file = hierarchy === "" ? "memory.max" : "memory.limit_in_bytes";
  const text = await readFile(path.join("/sys/fs/cgroup", hierarchy, group, file), "utf8").catch(() => undefined);
  if (text === undefined) return []; // it has just ended
  const limit = text === "max\n" ? leastUnlimited : BigInt(text.trim());
  const told = status.resources?.linux?.memoryLimitInBytes || leastUnlimited;
  const isSame = limit === told || (limit >= leastUnlimited && told >= leastUnlimited);
  return isSame ? [] : [`container ${status.id} has a memory limit of ${limit} bytes, its status tells of ${told}`];
}

function doubtLeases(leases: ReadonlyMap<string, string>, { pods }: Answers, traces: Traces): readonly string[] {
  const ids = new Set(pods.map(({ status }) => status.id));
  const doubts = [...leases].flatMap(([ip, id]) => (ids.has(id) ? [] : [`address ${ip} is lent to ${id}, no pod`]));
  const veths = traces.links.filter((line) => line.startsWith("veth")).length;
  if (veths > leases.size) doubts.push(`${veths} links of pods for ${leases.size} addresses`);
  return doubts;
}
