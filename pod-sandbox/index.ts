/** Pods and the containers in them: the RuntimeService without its transport. */
export { createRuntimeService } from "./runtime-service.ts";
export type { RuntimeService, RuntimeServiceParts } from "./runtime-service.ts";
export type { PodSandboxConfig } from "./host.ts";
