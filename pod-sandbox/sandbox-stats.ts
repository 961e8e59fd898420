import type { Call, cri, Init } from "../cri-api/index.ts";
import { readInterfaceCounters } from "../native/index.ts";
import type { InterfaceCounters } from "../native/index.ts";
import { cgroupPathsOfParent } from "../oci/index.ts";
import { containerSubjects, statsOf } from "./container-stats.ts";
import { nowNs } from "./clock.ts";
import type { Container } from "./container.ts";
import { toCriUsage } from "./cri-usage.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import { podInterface, usesHostNetwork } from "./network.ts";
import { isSamePod } from "./pod-containers.ts";
import type { Records } from "./pod-containers.ts";
import { runtimeOf } from "./runtimes.ts";
import { selectSandboxes } from "./sandbox-list.ts";
import type { Sandbox } from "./sandbox.ts";
import type { Sample, StatsReader, Subject } from "./stats-reader.ts";
import { sumOf } from "./stats-sum.ts";

/** What it carries never leaves the pod. */
export const loopback = "lo";

/** A pod, what is in it, and what was measured of both. */
export interface PodReading {
  readonly sandbox: Sandbox;
  readonly containers: readonly Container[];
  /** Of its own cgroup, else the sum of what runs in it; undefined when nothing does. */
  readonly sample: Sample | undefined;
  /** By container id. */
  readonly samples: ReadonlyMap<string, Sample>;
  /** Undefined for a pod on the host's network, and for one whose network is gone. */
  readonly interfaces: readonly InterfaceCounters[] | undefined;
}

/** @throws {CriError} `NotFound` for an unknown id. */
export async function podSandboxStats(
  _call: Call,
  request: cri.PodSandboxStatsRequest,
  host: Host,
): Promise<Init<cri.PodSandboxStatsResponse>> {
  const [reading] = await readPods([host.sandboxes.require(request.podSandboxId)], host);
  return { stats: reading ? toCriPodStats(reading, host) : null };
}

/** Every known pod; those that are not ready have no network, and cpu and memory only while something runs in them. */
export async function listPodSandboxStats(
  _call: Call,
  request: cri.ListPodSandboxStatsRequest,
  host: Host,
): Promise<Init<cri.ListPodSandboxStatsResponse>> {
  const sandboxes = host.sandboxes.list();
  const selected = request.filter ? selectSandboxes(sandboxes, request.filter) : sandboxes;
  return { stats: (await readPods(selected, host)).map((reading) => toCriPodStats(reading, host)) };
}

/** Measures pods and their containers: cgroup files and counters of interfaces, all on threads of the addon. */
export async function readPods(sandboxes: readonly Sandbox[], host: Host): Promise<readonly PodReading[]> {
  const bySandbox = Map.groupBy(host.containers.list(), (container) => container.sandboxId);
  const pods = sandboxes.map((sandbox) => ({ sandbox, containers: bySandbox.get(sandbox.id) ?? [] }));
  const subjects = [
    ...ownCgroupSubjects(sandboxes, host),
    ...pauseSubjects(sandboxes, host),
    ...pods.flatMap(({ containers }) => containerSubjects(containers, host)),
  ];
  const [samples, networks] = await Promise.all([host.stats.read(subjects), readNetworks(sandboxes, host)]);
  return pods.map(({ sandbox, containers }) => {
    const ids = [pauseSubjectId(sandbox), ...containers.map(({ id }) => id)];
    const parts = ids.map((id) => samples.get(id)).filter((sample) => sample !== undefined);
    const sample = samples.get(sandbox.id) ?? sumOf(parts);
    return { sandbox, containers, samples, sample, interfaces: networks.get(sandbox.id) };
  });
}

/** Pods' own cgroups; a pod that shares its cgroup parent with others has none. */
export function ownCgroupSubjects(sandboxes: readonly Sandbox[], host: Host): readonly Subject[] {
  const owners = cgroupOwners(host);
  return sandboxes.flatMap(({ id, state, config }): readonly Subject[] => {
    const parent = config.linux?.cgroupParent ?? "";
    if (state !== "ready" || !owners.get(parent)) return [];
    return [{ id, locate: async () => cgroupPathsOfParent(parent, host.config.cgroupDriver, host.cgroupMounts) }];
  });
}

function pauseSubjects(sandboxes: readonly Sandbox[], host: Host): readonly Subject[] {
  return sandboxes.flatMap((sandbox): readonly Subject[] => {
    if (sandbox.state !== "ready" || !sandbox.pause) return [];
    const { id, runtime } = sandbox;
    return [{ id: pauseSubjectId(sandbox), locate: () => runtimeOf(host, runtime).cgroupPaths(id) }];
  });
}

/** The runtime knows the pause process by the sandbox's id, which here is the whole pod's. */
function pauseSubjectId({ id }: Sandbox): string {
  return `${id}/pause`;
}

/** Cgroup parents and the one pod that has each; kubelet makes one for every pod, other clients may let pods share. */
function cgroupOwners(host: Host): ReadonlyMap<string, Sandbox | undefined> {
  const owners = new Map<string, Sandbox | undefined>([["", undefined]]);
  for (const sandbox of host.sandboxes.list()) {
    const parent = sandbox.config.linux?.cgroupParent ?? "";
    const owner = owners.get(parent);
    const isFirst = !owners.has(parent);
    owners.set(parent, isFirst || (owner && isSamePod(owner, sandbox)) ? sandbox : undefined);
  }
  return owners;
}

/** Counters of the interfaces of pods that have a network of their own, by sandbox id. */
export async function readNetworks(
  sandboxes: readonly Sandbox[],
  host: Host,
): Promise<ReadonlyMap<string, readonly InterfaceCounters[] | undefined>> {
  const pods = sandboxes.filter(({ state, config }) => state === "ready" && !usesHostNetwork(config));
  const counters = await readInterfaceCounters(pods.map(({ id }) => sandboxPathsOf(host.layout, id).netns));
  return new Map(pods.map(({ id }, index) => [id, counters[index]]));
}

function toCriPodStats(reading: PodReading, host: Host): Init<cri.PodSandboxStats> {
  const { sandbox, containers, samples, sample, interfaces } = reading;
  const { id, config } = sandbox;
  const timestamp = sample?.timestampNs ?? nowNs();
  const usage = sample && toCriUsage(sample);
  return {
    attributes: { id, metadata: config.metadata, labels: config.labels, annotations: config.annotations },
    linux: {
      ...(usage ? { cpu: usage.cpu, memory: usage.memory, io: usage.io } : {}),
      network: interfaces ? toCriNetworkUsage(interfaces, timestamp) : null,
      process: usage ? { timestamp, processCount: { value: processesOf(reading) } } : null,
      containers: containers.map((container) => statsOf(container, samples.get(container.id), host)),
    },
  };
}

/** Lets go of what the reader knows of pods and containers that have ended. */
export function forgetEnded(stats: StatsReader, { sandboxes, containers }: Records): void {
  containers.onChange((before, after) => {
    if (before && (!after || after.state === "exited")) stats.forget(before.id);
  });
  sandboxes.onChange((before, after) => {
    if (!before || after?.state === "ready") return;
    stats.forget(before.id);
    stats.forget(pauseSubjectId(before));
  });
}

/** Processes in a pod; threads in their place where a container has put its processes into cgroups of its own. */
export function processesOf({ sandbox, containers, samples }: PodReading): bigint {
  const ids = [pauseSubjectId(sandbox), ...containers.map(({ id }) => id)];
  return ids.reduce((total, id) => {
    const sample = samples.get(id);
    return total + (sample?.processCount || sample?.taskCount || 0n);
  }, 0n);
}

function toCriNetworkUsage(interfaces: readonly InterfaceCounters[], timestamp: bigint): Init<cri.NetworkUsage> {
  const own = interfaces.find(({ name }) => name === podInterface);
  const others = interfaces.filter(({ name }) => name !== podInterface && name !== loopback);
  return {
    timestamp,
    defaultInterface: own ? toCriInterfaceUsage(own) : null,
    interfaces: others.map(toCriInterfaceUsage),
  };
}

function toCriInterfaceUsage({ name, received, transmitted }: InterfaceCounters): Init<cri.NetworkInterfaceUsage> {
  return {
    name,
    rxBytes: { value: received.bytes },
    rxErrors: { value: received.errors },
    txBytes: { value: transmitted.bytes },
    txErrors: { value: transmitted.errors },
  };
}
