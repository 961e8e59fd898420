import type { cri } from "../cri-api/index.ts";
import type { HandlerTable } from "./handlers.ts";

type Rpcs = HandlerTable<keyof cri.RuntimeServiceMethods>;

/** RPCs of pods and containers that are not built yet; kubelet and crictl take UNIMPLEMENTED as their cue to do without. */
const unbuilt = {
  StreamPodSandboxes: "unimplemented",
  StreamContainers: "unimplemented",
  StreamContainerStats: "unimplemented",
  StreamPodSandboxStats: "unimplemented",
  CheckpointContainer: "unimplemented",
  CheckpointPod: "unimplemented",
  RestorePod: "unimplemented",
  ListMetricDescriptors: "unimplemented",
  ListPodSandboxMetrics: "unimplemented",
  StreamPodSandboxMetrics: "unimplemented",
  UpdatePodSandboxResources: "unimplemented",
} as const satisfies Partial<Rpcs>;

/** What this file needs of the pod-sandbox room: one function for every RPC but those. */
export type RuntimeRpcs = Omit<Rpcs, keyof typeof unbuilt>;

/** RuntimeService: every RPC of the contract, and who answers it. */
export function runtimeHandlers(service: RuntimeRpcs): Rpcs {
  return {
    ...unbuilt,
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
    GetContainerEvents: service.GetContainerEvents,
    UpdateRuntimeConfig: service.UpdateRuntimeConfig,
    Status: service.Status,
    RuntimeConfig: service.RuntimeConfig,
  };
}
