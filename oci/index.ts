/** One container as processes of the operating system: conmon, crun or runc, and cgroup files. */
export { createRuntime } from "./runtime/runtime.ts";
export { configPathOf } from "./runtime/bundle.ts";
export type { OomKill } from "./runtime/kernel-log.ts";
export type { ContainerExit, CreateProcess, CreatedProcess, WindowSize } from "./runtime/types.ts";
export type { ExecCommand, ExecLimits, ExecResult, ExecStreams } from "./runtime/types.ts";
export type { Runtime, RuntimeConfig, RuntimeFeatures, RuntimeParts } from "./runtime/types.ts";
/** What a runtime is and what it can, asked of its program. */
export { probeRuntime, type RuntimeFacts } from "./runtime/features.ts";
/** Where a process's cgroups are, and what they have counted. */
export { cgroupPathsOfParent, readCgroupMounts, readCgroupPaths } from "./runtime/cgroup-paths.ts";
export type { CgroupMounts, CgroupPaths } from "./runtime/cgroup-paths.ts";
export { readCgroupUsages, readContainerStats } from "./runtime/cgroup-stats.ts";
export { type CgroupCounters, readBlockDeviceNames, readCgroupCounters } from "./runtime/cgroup-counters.ts";
export type { ContainerUsage, Pressure, PressureKind, Stall } from "./runtime/cgroup-stats.ts";
/** config.json as pure functions of the CRI's messages. */
export { buildContainerSpec, buildPauseSpec } from "./spec/container-spec.ts";
export { cdiDeviceNames, validateContainerConfig } from "./spec/validate.ts";
export { validateSysctls } from "./spec/sysctls.ts";
export { assertNoControlCharacters } from "./spec/text.ts";
export { type ResolvedUser, resolveUser } from "./spec/user.ts";
export { type IdMaps, podIdMaps } from "./spec/user-namespace.ts";
export { missingAccounts } from "./spec/account-files.ts";
export { capabilityNames } from "./spec/capabilities.ts";
export { assertHostname, hostsText, resolvConfText } from "./spec/pod-files.ts";
export { applyResourceUpdate, toOciResources } from "./spec/resources.ts";
export { stopSignalName, stopSignalNumber } from "./spec/stop-signal.ts";
export { localhostSeccompPath } from "./spec/seccomp.ts";
export { parseSeccompProfile } from "./spec/seccomp-file.ts";
export { defaultSeccompProfile } from "./spec/seccomp-default.ts";
export type { CgroupLayout, ContainerSpecInput, HostFacts, ImageDefaults, PauseSpecInput } from "./spec/input.ts";
export type { NamespacePaths, PidNamespace, PodFiles } from "./spec/input.ts";
export type { ResolvedCdi, ResolvedDevice, ResolvedMount } from "./spec/input.ts";
export type { OciResources, Process, Spec } from "./spec/oci-types.ts";
/** Devices that vendors describe in files of the Container Device Interface. */
export { type CdiRegistry, createCdiRegistry } from "./cdi/cdi-registry.ts";
export { isBindMount } from "./spec/mounts.ts";
export { buildSelinuxLabels, isUnconfinedBySelinux, type SelinuxLabels } from "./spec/security-labels.ts";
/** What containers run under that name nothing of their own: an AppArmor profile, SELinux contexts. */
export { loadApparmorProfile } from "./apparmor.ts";
export { readSelinuxDefaults } from "./selinux.ts";
