import { isAbsolute } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import { assertHostname, assertNoControlCharacters, podIdMaps, resolvConfText, validateSysctls } from "../oci/index.ts";
import { validateCgroupParent } from "./host.ts";
import type { Host } from "./host.ts";
import { usesHostNetwork, validateNetworkWishes } from "./network.ts";
import { namespaceOptionsOf } from "./sandbox.ts";

/** A config whose metadata is known to be there. */
export type ValidSandboxConfig = cri.PodSandboxConfig & { readonly metadata: cri.PodSandboxMetadata };

/** @throws {CriError} `InvalidArgument` naming the field that is missing, malformed or not supported. */
export function validateSandboxConfig(
  host: Pick<Host, "config">,
  config: cri.PodSandboxConfig | null,
): ValidSandboxConfig {
  if (!config) throw new CriError(Code.InvalidArgument, "pod sandbox config is missing");
  const { metadata } = config;
  if (!metadata) throw new CriError(Code.InvalidArgument, "pod sandbox metadata is missing");
  requireText("metadata.name", metadata.name);
  requireText("metadata.namespace", metadata.namespace);
  requireText("metadata.uid", metadata.uid);
  if (config.hostname !== "") assertHostname(config.hostname);
  if (config.logDirectory !== "" && !isAbsolute(config.logDirectory)) {
    throw new CriError(Code.InvalidArgument, `log_directory "${config.logDirectory}" is not absolute`);
  }
  validateNetworkWishes(config);
  validateNamespaces(config);
  validateCgroupParent(host, config.linux?.cgroupParent ?? "");
  const modes = namespaceOptionsOf(config);
  if (config.dnsConfig) resolvConfText(config.dnsConfig);
  validateSysctls(config.linux?.sysctls ?? {}, {
    hasNetworkNamespace: !usesHostNetwork(config),
    hasIpcNamespace: modes.ipc !== "NODE",
  });
  return { ...config, metadata };
}

function requireText(field: string, value: string): void {
  if (value === "") throw new CriError(Code.InvalidArgument, `pod sandbox ${field} is empty`);
  assertNoControlCharacters(field, value);
  if (value.includes("/") || value.length > 253) {
    throw new CriError(Code.InvalidArgument, `pod sandbox ${field} "${value}" is malformed`);
  }
}

function validateNamespaces(config: cri.PodSandboxConfig): void {
  const modes = namespaceOptionsOf(config);
  for (const kind of ["network", "ipc"] as const) {
    if (modes[kind] === "POD" || modes[kind] === "NODE") continue;
    throw new CriError(Code.InvalidArgument, `${kind} namespace of a pod cannot be ${modes[kind]}`);
  }
  if (modes.pid === "TARGET") throw new CriError(Code.InvalidArgument, "pid namespace of a pod cannot be TARGET");
  podIdMaps(config);
}
