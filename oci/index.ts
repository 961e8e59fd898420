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
export { buildContainerSpec, buildPauseSpec } from "./spec/container-spec.ts";
export type { ContainerSpecInput, HostFacts, ImageDefaults, PauseSpecInput } from "./spec/input.ts";
export type { ResolvedDevice, ResolvedMount } from "./spec/input.ts";
export { validateContainerConfig } from "./spec/validate.ts";
export { capabilityNames } from "./spec/capabilities.ts";
export { resolveUser, type ResolvedUser } from "./spec/user.ts";
export { missingAccounts } from "./spec/account-files.ts";
export { applyResourceUpdate, toOciResources } from "./spec/resources.ts";
export { defaultSeccompProfile } from "./spec/seccomp-default.ts";
export { localhostSeccompPath } from "./spec/seccomp.ts";
export { parseSeccompProfile, type SeccompProfile } from "./spec/seccomp-file.ts";
export { stopSignalName, stopSignalNumber } from "./spec/stop-signal.ts";
export { assertHostname, hostsText, resolvConfText } from "./spec/pod-files.ts";
export { validateSysctls } from "./spec/sysctls.ts";
export { assertNoControlCharacters } from "./spec/text.ts";
export type {
  ContainerSpecInput,
  HostFacts,
  ImageDefaults,
  PodFiles,
  ResolvedDevice,
  ResolvedMount,
} from "./spec/input.ts";
export { buildContainerSpec, buildPauseSpec } from "./spec/container-spec.ts";
export { validateContainerConfig } from "./spec/validate.ts";
export { applyResourceUpdate, toOciResources } from "./spec/resources.ts";
export { localhostSeccompPath } from "./spec/seccomp.ts";
export { parseSeccompProfile } from "./spec/seccomp-file.ts";
export { stopSignalName, stopSignalNumber } from "./spec/stop-signal.ts";
export { capabilityNames } from "./spec/capabilities.ts";
export { resolveUser, type ResolvedUser } from "./spec/user.ts";
export { missingAccounts } from "./spec/account-files.ts";
/** Files and settings of a pod. */
export { assertHostname, resolvConfText } from "./spec/pod-files.ts";
export { validateSysctls } from "./spec/sysctls.ts";
export { assertNoControlCharacters } from "./spec/text.ts";
export { resolveDevice, isPrivilegedDevice } from "./spec/devices.ts";
