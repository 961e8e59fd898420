import { Code, CriError } from "../cri-api/index.ts";
import type { JsonObject } from "./json.ts";
import { hasControlCharacter } from "./text.ts";

/** One interface of one pod: what ADD is asked to make and DEL to take away. */
export interface Attachment {
  /** The pod sandbox id. */
  readonly containerId: string;
  /** A file of the pod's network namespace; `""` where it is gone (DEL only). */
  readonly netnsPath: string;
  /** Name of the interface inside the pod, `eth0`. */
  readonly ifName: string;
  readonly pod: { readonly name: string; readonly namespace: string; readonly uid: string };
  /** Entries whose `hostPort` is 0 ask for nothing and are left out. */
  readonly portMappings: readonly PortMapping[];
  readonly bandwidth?: Bandwidth | undefined;
  readonly dns?: Dns | undefined;
  /** The pod's cgroup, for plugins that attach programs to it. */
  readonly cgroupPath?: string | undefined;
  /** Addresses with prefix that the pod asks for (plugin `static`). */
  readonly ips?: readonly string[] | undefined;
  readonly mac?: string | undefined;
  readonly ipRanges?: readonly (readonly IpRange[])[] | undefined;
  readonly deviceId?: string | undefined;
  readonly infinibandGuid?: string | undefined;
  readonly aliases?: Readonly<Record<string, readonly string[]>> | undefined;
}

export interface PortMapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp" | "sctp";
  /** The node's address to listen on; `""` is all of them. */
  readonly hostIP: string;
}

/** Bits per second; a burst (bits) that is absent is the largest the plugin takes. */
export interface Bandwidth {
  readonly ingressRate?: number | undefined;
  readonly ingressBurst?: number | undefined;
  readonly egressRate?: number | undefined;
  readonly egressBurst?: number | undefined;
}

export interface Dns {
  readonly servers: readonly string[];
  readonly searches: readonly string[];
  readonly options: readonly string[];
}

export interface IpRange {
  readonly subnet: string;
  readonly rangeStart?: string | undefined;
  readonly rangeEnd?: string | undefined;
  readonly gateway?: string | undefined;
}

export type CniArgs = readonly (readonly [key: string, value: string])[];

const largestBurstBits = 2 ** 31 - 1;

/** @throws {CriError} `InvalidArgument` for what the spec forbids in ids and names, and what would split CNI_ARGS. */
export function validateAttachment(attachment: Attachment): void {
  const { containerId, ifName, pod } = attachment;
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(containerId) || containerId.length > 100) {
    throw invalid(`container id ${JSON.stringify(containerId)} is not one that CNI allows`);
  }
  if (!/^[^\s/:]{1,15}$/.test(ifName) || hasControlCharacter(ifName) || ifName === "." || ifName === "..") {
    throw invalid(`interface name ${JSON.stringify(ifName)} is not one that Linux allows`);
  }
  for (const [field, value] of Object.entries({ namespace: pod.namespace, name: pod.name, uid: pod.uid })) {
    if (/[;=]/.test(value) || hasControlCharacter(value)) {
      throw invalid(`pod ${field} ${JSON.stringify(value)} cannot be passed to CNI plugins`);
    }
  }
  if (hasControlCharacter(attachment.netnsPath)) throw invalid("network namespace path holds control characters");
}

/** The names are those containerd and CRI-O send: Multus, Calico and Cilium read them. */
export function cniArgsOf({ containerId, pod }: Attachment): CniArgs {
  return [
    ["IgnoreUnknown", "1"],
    ["K8S_POD_NAMESPACE", pod.namespace],
    ["K8S_POD_NAME", pod.name],
    ["K8S_POD_INFRA_CONTAINER_ID", containerId],
    ["K8S_POD_UID", pod.uid],
  ];
}

/**
 * Everything the pod asks for, by the names of the CNI conventions; each plugin gets what its entry says it can do.
 *
 * @see https://github.com/containernetworking/cni/blob/v1.3.0/CONVENTIONS.md#dynamic-plugin-specific-fields-capabilities--runtime-configuration
 */
export function capabilityArgsOf(attachment: Attachment): JsonObject {
  const portMappings = attachment.portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIP }) => ({ hostPort, containerPort, protocol, hostIP }));
  return withoutAbsent({
    portMappings: portMappings.length === 0 ? undefined : portMappings,
    bandwidth: attachment.bandwidth && bandwidthArg(attachment.bandwidth),
    dns: attachment.dns,
    cgroupPath: attachment.cgroupPath === "" ? undefined : attachment.cgroupPath,
    ips: attachment.ips,
    mac: attachment.mac,
    ipRanges: attachment.ipRanges,
    deviceID: attachment.deviceId,
    infinibandGUID: attachment.infinibandGuid,
    aliases: attachment.aliases,
  });
}

function bandwidthArg(bandwidth: Bandwidth): JsonObject | undefined {
  const { ingressRate, ingressBurst, egressRate, egressBurst } = bandwidth;
  const asked = {
    ...(ingressRate ? { ingressRate, ingressBurst: ingressBurst ?? largestBurstBits } : {}),
    ...(egressRate ? { egressRate, egressBurst: egressBurst ?? largestBurstBits } : {}),
  };
  return Object.keys(asked).length === 0 ? undefined : asked;
}

function withoutAbsent(fields: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function invalid(message: string): CriError {
  return new CriError(Code.InvalidArgument, message);
}
