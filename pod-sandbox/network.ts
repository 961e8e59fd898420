import { isIP } from "node:net";
import type { Attachment } from "../cni/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { SandboxPaths } from "./layout.ts";
import { namespaceOptionsOf } from "./sandbox.ts";

/** The name that every pod's interface of its default network has inside. */
export const podInterface = "eth0";

/** The one network interface a pod gets, described so that ADD and any later DEL agree. */
export function attachmentOf(id: string, config: cri.PodSandboxConfig, netnsPath: SandboxPaths["netns"]): Attachment {
  const metadata = config.metadata ?? { name: "", namespace: "", uid: "" };
  const bandwidth = bandwidthOf(config.annotations);
  const cgroupPath = config.linux?.cgroupParent;
  return {
    containerId: id,
    netnsPath,
    ifName: podInterface,
    pod: { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid },
    portMappings: portMappingsOf(config.portMappings),
    ...(bandwidth ? { bandwidth } : {}),
    ...(config.dnsConfig ? { dns: config.dnsConfig } : {}),
    ...(cgroupPath ? { cgroupPath } : {}),
  };
}

export function usesHostNetwork(config: cri.PodSandboxConfig): boolean {
  return namespaceOptionsOf(config).network === "NODE";
}

const protocols = { TCP: "tcp", UDP: "udp", SCTP: "sctp" } as const satisfies Record<cri.Protocol, string>;

/** Mappings with a host port; 0 only names the container's port and maps nothing. */
function portMappingsOf(mappings: readonly cri.PortMapping[]): Attachment["portMappings"] {
  return mappings
    .filter((mapping) => mapping.hostPort > 0)
    .map((mapping) => ({
      hostPort: mapping.hostPort,
      containerPort: mapping.containerPort,
      protocol: protocols[mapping.protocol],
      hostIP: mapping.hostIp,
    }));
}

/**
 * Refuses before there is a pod what its DEL would stumble over as its ADD did: nothing could then take the pod down.
 *
 * @throws {CriError} `InvalidArgument` for a name, port, address or bandwidth that CNI plugins cannot be told.
 */
export function validateNetworkWishes(config: cri.PodSandboxConfig): void {
  validatePortMappings(config.portMappings);
  if (usesHostNetwork(config)) return;
  const { name = "", namespace = "", uid = "" } = config.metadata ?? {};
  for (const [field, value] of Object.entries({ name, namespace, uid })) {
    if (!/[;=]/.test(value)) continue;
    throw new CriError(Code.InvalidArgument, `pod sandbox metadata.${field} "${value}" has a character CNI splits at`);
  }
  bandwidthOf(config.annotations);
}

function validatePortMappings(mappings: readonly cri.PortMapping[]): void {
  const isPort = (port: number, lowest: number): boolean => port >= lowest && port <= 65_535;
  for (const { hostPort, containerPort, hostIp } of mappings) {
    if (!isPort(hostPort, 0) || !isPort(containerPort, 1)) {
      throw new CriError(Code.InvalidArgument, `invalid port mapping ${hostPort}:${containerPort}`);
    }
    if (hostIp !== "" && isIP(hostIp) === 0) {
      throw new CriError(Code.InvalidArgument, `host_ip "${hostIp}" of a port mapping is not an address`);
    }
  }
}

const ingressAnnotation = "kubernetes.io/ingress-bandwidth";
const egressAnnotation = "kubernetes.io/egress-bandwidth";
/** The CNI convention for "no burst limit". */
const unlimitedBurst = 2_147_483_647;

function bandwidthOf(annotations: Readonly<Record<string, string>>): Attachment["bandwidth"] {
  const ingress = annotations[ingressAnnotation];
  const egress = annotations[egressAnnotation];
  if (ingress === undefined && egress === undefined) return undefined;
  return {
    ...(ingress === undefined ? {} : { ingressRate: parseQuantity(ingress), ingressBurst: unlimitedBurst }),
    ...(egress === undefined ? {} : { egressRate: parseQuantity(egress), egressBurst: unlimitedBurst }),
  };
}

const factors: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** A Kubernetes quantity in bits per second, at most 1 Pbit/s as kubelet allows. */
function parseQuantity(text: string): number {
  const [, digits, suffix] = /^(\d{1,16}(?:\.\d{1,9})?)([kMGTP]|[KMGTP]i)?$/.exec(text) ?? [];
  const bits = Math.ceil(Number(digits) * (factors[suffix ?? ""] ?? Number.NaN));
  if (bits >= 1000 && bits <= 1e15) return bits;
  throw new CriError(Code.InvalidArgument, `invalid bandwidth annotation "${text}"`);
}
