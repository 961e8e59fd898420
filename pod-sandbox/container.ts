import type { cri } from "../cri-api/index.ts";
import type { ProcessIdentity } from "../native/index.ts";

interface ContainerBase {
  readonly id: string;
  readonly sandboxId: string;
  /** `<name>_<attempt>_<sandbox id>`: what a retry of the same CreateContainer is known by. */
  readonly name: string;
  readonly config: cri.ContainerConfig;
  readonly runtime: string;
  readonly createdAtNs: bigint;
  readonly imageId: string;
  /** Digested reference of the image where there is one, else its id. */
  readonly imageRef: string;
  /** Absolute path of the log file; "" when the container writes none. */
  readonly logPath: string;
  /** As set at create and by UpdateContainerResources, never read back from cgroups: values must round-trip. */
  readonly resources: cri.LinuxContainerResources;
  /** What the update under way makes of them; absent while there is none. */
  readonly wantedResources?: cri.LinuxContainerResources | undefined;
  readonly stopSignal: number;
}

/** Known once the image's root filesystem was there to look names up in. */
interface Resolved {
  readonly user: { readonly uid: number; readonly gid: number; readonly supplementalGroups: readonly number[] };
}

interface Processes {
  readonly init: ProcessIdentity;
  readonly monitor?: ProcessIdentity | undefined;
  /** When the stop under way kills it, on the clock that counts from the boot; absent while nobody stops it. */
  readonly killAtNs?: bigint | undefined;
}

/** How a container ended. `startedAtNs` is 0 when it never ran. */
export interface Ending {
  readonly startedAtNs: bigint;
  readonly finishedAtNs: bigint;
  readonly exitCode: number;
  readonly reason: string;
  readonly message: string;
}

/** A container and exactly what is true of it in its state; `creating` is not visible to clients. */
export type Container =
  | (ContainerBase & { readonly state: "creating" })
  | (ContainerBase & Resolved & Processes & { readonly state: "created" })
  | (ContainerBase & Resolved & Processes & { readonly state: "running"; readonly startedAtNs: bigint })
  | (ContainerBase & Resolved & Ending & { readonly state: "exited" });

export type ContainerIn<S extends Container["state"]> = Extract<Container, { state: S }>;
/** One that clients can see. */
export type KnownContainer = ContainerIn<"created" | "running" | "exited">;
export type LiveContainer = ContainerIn<"created" | "running">;

const successors = {
  creating: ["created"],
  created: ["running", "exited"],
  running: ["exited"],
  exited: [],
} as const satisfies Record<Container["state"], readonly Container["state"][]>;

/** Moves a container along a legal edge; an edge outside the table does not compile. */
export function advanceContainer<
  From extends Container["state"],
  To extends ContainerIn<(typeof successors)[From][number]>,
>(_from: ContainerIn<From>, to: To): To {
  return to;
}

/** As its user wrote it, where kubelet says so; else as it was asked for. */
export function imageNameOf({ config }: Pick<Container, "config">): string {
  return config.image?.userSpecifiedImage || config.image?.image || "";
}

export function containerName(metadata: cri.ContainerMetadata, sandboxId: string): string {
  return `${metadata.name}_${metadata.attempt}_${sandboxId}`;
}

export function isLive(container: Container): container is LiveContainer {
  return container.state === "created" || container.state === "running";
}

const criStates = {
  creating: "CONTAINER_UNKNOWN",
  created: "CONTAINER_CREATED",
  running: "CONTAINER_RUNNING",
  exited: "CONTAINER_EXITED",
} as const satisfies Record<Container["state"], cri.ContainerState>;

export function criContainerState(container: Container): cri.ContainerState {
  return criStates[container.state];
}
