import type { cri } from "../cri-api/index.ts";
import type { HandlerTable } from "./handlers.ts";
import { streamList } from "./list-streams.ts";

type Rpcs = HandlerTable<keyof cri.RuntimeServiceMethods>;

/** RPCs of pods and containers that are not built yet; kubelet and crictl take UNIMPLEMENTED as their cue to do without. */
const unbuilt = {
  CheckpointContainer: "unimplemented",
  CheckpointPod: "unimplemented",
  RestorePod: "unimplemented",
} as const satisfies Partial<Rpcs>;

/** RPCs of which this file makes another: the lists in parts. */
type ListStreams =
  | "StreamPodSandboxes"
  | "StreamContainers"
  | "StreamContainerStats"
  | "StreamPodSandboxStats"
  | "StreamPodSandboxMetrics";

/** What this file needs of the pod-sandbox room: one function for every RPC but those. */
export type RuntimeRpcs = {
  readonly [Name in Exclude<keyof Rpcs, keyof typeof unbuilt | ListStreams>]: Exclude<Rpcs[Name], "unimplemented">;
};

function listStreams(service: RuntimeRpcs): Pick<Rpcs, ListStreams> {
  return {
    StreamPodSandboxes: streamList(
      async (call, request) => (await service.ListPodSandbox(call, request)).items ?? [],
      (podSandboxes) => ({ podSandboxes }),
    ),
    StreamContainers: streamList(
      async (call, request) => (await service.ListContainers(call, request)).containers ?? [],
      (containers) => ({ containers }),
    ),
    StreamContainerStats: streamList(
      async (call, request) => (await service.ListContainerStats(call, request)).stats ?? [],
      (containerStats) => ({ containerStats }),
    ),
    StreamPodSandboxStats: streamList(
      async (call, request) => (await service.ListPodSandboxStats(call, request)).stats ?? [],
      (podSandboxStats) => ({ podSandboxStats }),
    ),
    StreamPodSandboxMetrics: streamList(
      async (call, request) => (await service.ListPodSandboxMetrics(call, request)).podMetrics ?? [],
      (podSandboxMetrics) => ({ podSandboxMetrics }),
    ),
  };
}

/** RuntimeService: every RPC of the contract, and who answers it. */
export function runtimeHandlers(service: RuntimeRpcs): Rpcs {
  return {
    ...unbuilt,
    ...listStreams(service),
    Version: service.Version,
    RunPodSandbox: service.RunPodSandbox,
    StopPodSandbox: service.StopPodSandbox,
    RemovePodSandbox: service.RemovePodSandbox,
    PodSandboxStatus: service.PodSandboxStatus,
    ListPodSandbox: service.ListPodSandbox,
    CreateContainer: service.CreateContainer,
    StartContainer: service.StartContainer,
    StopContainer: service.StopContainer,
    RemoveContainer: service.RemoveContainer,
    ListContainers: service.ListContainers,
    ContainerStatus: service.ContainerStatus,
    UpdateContainerResources: service.UpdateContainerResources,
    ReopenContainerLog: service.ReopenContainerLog,
    ExecSync: service.ExecSync,
    Exec: service.Exec,
    Attach: service.Attach,
    PortForward: service.PortForward,
    ContainerStats: service.ContainerStats,
    ListContainerStats: service.ListContainerStats,
    PodSandboxStats: service.PodSandboxStats,
    ListPodSandboxStats: service.ListPodSandboxStats,
    UpdatePodSandboxResources: service.UpdatePodSandboxResources,
    ListMetricDescriptors: service.ListMetricDescriptors,
    ListPodSandboxMetrics: service.ListPodSandboxMetrics,
    GetContainerEvents: service.GetContainerEvents,
    UpdateRuntimeConfig: service.UpdateRuntimeConfig,
    Status: service.Status,
    RuntimeConfig: service.RuntimeConfig,
  };
}
