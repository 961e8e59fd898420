import type { Cni } from "../cni/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri, Init, Logger } from "../cri-api/index.ts";
import type { ImageService } from "../image-service/index.ts";
import type { CdiRegistry, CgroupMounts, HostFacts, Runtime } from "../oci/index.ts";
import type { Clock } from "./clock.ts";
import type { ContainerEvents } from "./container-events.ts";
import type { Container } from "./container.ts";
import type { Creations } from "./creations.ts";
import type { ImageVolumes } from "./declared-volumes.ts";
import type { ExitWatch } from "./exit-watch.ts";
import type { Layout } from "./layout.ts";
import type { RecordStore } from "./record-store.ts";
import type { Runtimes } from "./runtimes.ts";
import type { Sandbox } from "./sandbox.ts";
import type { StatsReader } from "./stats-reader.ts";
import type { StopLoops } from "./stop-loop.ts";
import type { KeyedLock } from "../native/index.ts";

/** What this room is told by the configuration. */
export interface PodSandboxConfig {
  readonly root: string;
  readonly state: string;
  readonly cgroupDriver: "cgroupfs" | "systemd";
  readonly defaultRuntime: string;
  readonly imageVolumes: ImageVolumes;
  readonly runtimeVersion: string;
}

export type Images = Pick<
  ImageService,
  | "resolveImage"
  | "requireAllowed"
  | "createRootfs"
  | "mountVolume"
  | "mountDeclaredVolume"
  | "removeRootfs"
  | "rootfsUsage"
  | "rootfsIds"
  | "pullsInProgress"
  | "registryProblems"
>;
export type Network = Pick<Cni, "status" | "add" | "del" | "collectGarbage" | "endStrayPlugins">;

/** Everything an RPC of this room works with; made once by `createRuntimeService`. */
export interface Host {
  readonly config: PodSandboxConfig;
  readonly layout: Layout;
  readonly sandboxes: RecordStore<Sandbox>;
  readonly containers: RecordStore<Container>;
  readonly listItems: {
    readonly sandbox: (sandbox: Sandbox) => Init<cri.PodSandbox>;
    readonly container: (container: Container) => Init<cri.Container>;
  };
  readonly creations: Creations;
  readonly events: ContainerEvents;
  /** When a status was taken; in one order with the events. */
  readonly clock: Clock;
  readonly exits: ExitWatch;
  readonly stops: StopLoops;
  /** One stop, start or remove of one object at a time. */
  readonly operations: KeyedLock;
  readonly stats: StatsReader;
  readonly cgroupMounts: CgroupMounts;
  /** What a container that asks for no limits has. */
  readonly noResources: cri.LinuxContainerResources;
  readonly runtimes: Runtimes;
  readonly network: Network;
  readonly images: Images;
  readonly cdi: CdiRegistry;
  readonly facts: HostFacts;
  /** Draws a level for a new pod. */
  readonly drawSelinuxLevel: () => string;
  readonly log: Logger;
}

/** The runtime of a handler as a request names it; "" is the default one. @throws {CriError} `InvalidArgument`. */
export function chooseRuntime(host: Pick<Host, "config" | "runtimes">, handler: string): Runtime {
  const runtime = host.runtimes.get(handler === "" ? host.config.defaultRuntime : handler);
  if (runtime) return runtime;
  throw new CriError(Code.InvalidArgument, `unknown runtime handler "${handler}"`);
}

/** Where the cgroup driver puts a container: a path for cgroupfs, `slice:prefix:name` for systemd. */
export function cgroupsPathOf(host: Pick<Host, "config">, cgroupParent: string, id: string): string {
  if (host.config.cgroupDriver === "systemd") return `${sliceOf(cgroupParent) || "system.slice"}:berth:${id}`;
  return `${cgroupParent.replace(/\/+$/, "")}/berth-${id}`;
}

/** kubelet names a slice by its whole path; where it lies follows from the last name alone. "" is none. */
function sliceOf(cgroupParent: string): string {
  return cgroupParent.split("/").findLast((name) => name !== "") ?? "";
}

/** What systemd takes for a slice: words joined by dashes, none of them empty. */
const slicePattern = /^[A-Za-z0-9_.\\]+(?:-[A-Za-z0-9_.\\]+)*\.slice$/;

/** @throws {CriError} `InvalidArgument` where the parent cannot belong to the cgroup driver. */
export function validateCgroupParent(host: Pick<Host, "config">, cgroupParent: string): void {
  const slice = sliceOf(cgroupParent);
  if (host.config.cgroupDriver === "systemd" && slice !== "" && !slicePattern.test(slice)) {
    throw new CriError(
      Code.InvalidArgument,
      `cgroup parent "${cgroupParent}" is no slice, as the systemd cgroup driver needs`,
    );
  }
  if (cgroupParent.split("/").includes("..")) {
    throw new CriError(Code.InvalidArgument, `cgroup parent "${cgroupParent}" has a ".." component`);
  }
}
