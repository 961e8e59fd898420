/** The streaming server of Exec, Attach and PortForward. */
export { createStreamingServer } from "./streaming-server.ts";
export type { StreamingConfig, StreamingServer } from "./streaming-server.ts";
/** What the server asks of the rest of the daemon. */
export type {
  AttachStreamRequest,
  ExecStreamRequest,
  PortForwardStreamRequest,
  ProcessStreams,
  StreamingBackend,
  TerminalSize,
} from "./backend.ts";
export type { TlsFiles } from "./tls-files.ts";
