import type { RuntimeService } from "../pod-sandbox/index.ts";
import type { UnaryHandler } from "./handlers.ts";
import type { StreamingServer } from "./streaming/index.ts";

type StreamRpc = "Exec" | "Attach" | "PortForward";

/** Exec, Attach and PortForward: what cannot be streamed is refused here, the rest gets a URL that works once. */
export function streamHandlers(
  streams: RuntimeService["streams"],
  server: StreamingServer,
): { readonly [Name in StreamRpc]: UnaryHandler<Name> } {
  return {
    async Exec(_call, request) {
      streams.admitContainer(request.containerId);
      return { url: server.execUrl(request) };
    },
    async Attach(_call, request) {
      streams.admitContainer(request.containerId);
      return { url: server.attachUrl(request) };
    },
    async PortForward(_call, request) {
      streams.admitPodSandbox(request.podSandboxId);
      return { url: server.portForwardUrl(request) };
    },
  };
}
