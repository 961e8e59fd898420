import { hostname } from "node:os";
import type { cri } from "../cri-api/index.ts";
import type { ProcessIdentity } from "../native/index.ts";

interface SandboxBase {
  readonly id: string;
  /** `<name>/<namespace>/<uid>/<attempt>`: what a retry of the same RunPodSandbox is known by. */
  readonly name: string;
  readonly config: cri.PodSandboxConfig;
  /** As the request named it; "" is the default handler. */
  readonly runtimeHandler: string;
  /** The handler it resolved to; a later change of the default does not move a pod. */
  readonly runtime: string;
  readonly createdAtNs: bigint;
  /** The SELinux level that its containers share and no other pod has, unless it asked for one; none without SELinux. */
  readonly selinuxLevel?: string | undefined;
}

/**
 * A pod sandbox and exactly what is true of it in its state.
 *
 * - `creating`: RunPodSandbox is at work (or was, when the daemon died); not visible to clients.
 * - `ready`: namespaces pinned, network attached, pause process (if any) running.
 * - `not-ready`: something is gone or being torn down; resources may still be held, StopPodSandbox releases them.
 * - `stopped`: everything is released but the record, which RemovePodSandbox drops.
 */
export type Sandbox =
  | (SandboxBase & { readonly state: "creating" })
  | (SandboxBase & { readonly state: "ready"; readonly ips: readonly string[]; readonly pause?: ProcessIdentity })
  | (SandboxBase & { readonly state: "not-ready"; readonly ips: readonly string[] })
  | (SandboxBase & { readonly state: "stopped"; readonly ips: readonly string[] });

export type SandboxIn<S extends Sandbox["state"]> = Extract<Sandbox, { state: S }>;

const successors = {
  creating: ["ready", "not-ready"],
  ready: ["not-ready"],
  "not-ready": ["stopped"],
  stopped: [],
} as const satisfies Record<Sandbox["state"], readonly Sandbox["state"][]>;

/** Moves a sandbox along a legal edge; an edge outside the table does not compile. */
export function advanceSandbox<From extends Sandbox["state"], To extends SandboxIn<(typeof successors)[From][number]>>(
  _from: SandboxIn<From>,
  to: To,
): To {
  return to;
}

/** What every state of a sandbox has; the start of the next state's record. */
export function sandboxBase(sandbox: Sandbox): SandboxBase {
  const { id, name, config, runtimeHandler, runtime, createdAtNs, selinuxLevel } = sandbox;
  return {
    id,
    name,
    config,
    runtimeHandler,
    runtime,
    createdAtNs,
    ...(selinuxLevel === undefined ? {} : { selinuxLevel }),
  };
}

/** None of the parts may hold a slash, so no two pods can read alike. */
export function sandboxName({ name, namespace, uid, attempt }: cri.PodSandboxMetadata): string {
  return `${name}/${namespace}/${uid}/${attempt}`;
}

export function sandboxIps(sandbox: Sandbox): readonly string[] {
  return sandbox.state === "creating" ? [] : sandbox.ips;
}

export function criSandboxState(sandbox: Sandbox): cri.PodSandboxState {
  return sandbox.state === "ready" ? "SANDBOX_READY" : "SANDBOX_NOTREADY";
}

/** Namespace modes of a pod, with the CRI's defaults where the request left them out (all POD). */
export function namespaceOptionsOf(config: cri.PodSandboxConfig): {
  readonly network: cri.NamespaceMode;
  readonly pid: cri.NamespaceMode;
  readonly ipc: cri.NamespaceMode;
} {
  const options = config.linux?.securityContext?.namespaceOptions;
  return { network: options?.network ?? "POD", pid: options?.pid ?? "POD", ipc: options?.ipc ?? "POD" };
}

/** A pod that already shares the host, or says it is privileged, may hold privileged containers. */
export function isPrivilegedSandbox(config: cri.PodSandboxConfig): boolean {
  const modes = namespaceOptionsOf(config);
  const privileged = config.linux?.securityContext?.privileged ?? false;
  return privileged || Object.values(modes).includes("NODE");
}

/** The pod's host name: the one asked for, else that of the host it shares the network with, else the short id. */
export function hostnameOf({ id, config }: Pick<Sandbox, "id" | "config">): string {
  return config.hostname || (namespaceOptionsOf(config).network === "NODE" ? hostname() : id.slice(0, 12));
}
