/** Pods and the containers in them: the RuntimeService without its transport. */
export { createRuntimeService } from "./runtime-service.ts";
export type { RuntimeService, RuntimeServiceParts } from "./runtime-service.ts";
export type { PodSandboxConfig } from "./host.ts";
/** What the kernel offers and the daemon holds. */
export { readHostFacts } from "./host-facts.ts";
