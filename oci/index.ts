/** One container as processes of the operating system: conmon, crun or runc, and cgroup files. */
export { createRuntime } from "./runtime/runtime.ts";
export type {
  ContainerExit,
  CreateProcess,
  CreatedProcess,
  ExecCommand,
  ExecLimits,
  ExecResult,
  ExecStreams,
  Runtime,
  RuntimeConfig,
  RuntimeFeatures,
  RuntimeParts,
  WindowSize,
} from "./runtime/types.ts";
/** Where a process's cgroups are, and what they have counted. */
export { readCgroupPaths } from "./runtime/cgroup-paths.ts";
export type { CgroupPaths } from "./runtime/cgroup-paths.ts";
export { readContainerStats } from "./runtime/cgroup-stats.ts";
export type { ContainerUsage } from "./runtime/cgroup-stats.ts";
/** config.json as pure functions of the CRI's messages. */
export type { OciResources, Process, Spec } from "./spec/oci-types.ts";
