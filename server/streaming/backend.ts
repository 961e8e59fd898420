import type { Duplex, Readable, Writable } from "node:stream";
import type { Call } from "../../cri-api/index.ts";

/** Size of a terminal in characters. */
export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** What an exec was asked for; the ids are as the caller gave them. */
export interface ExecStreamRequest {
  readonly containerId: string;
  readonly cmd: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/** What an attach was asked for. */
export type AttachStreamRequest = Omit<ExecStreamRequest, "cmd">;

/** Which port of which pod a connection goes to. */
export interface PortForwardStreamRequest {
  readonly podSandboxId: string;
  readonly port: number;
}

/**
 * A process, or a container attached to, with the ends of its streams. The server closes it (`Symbol.asyncDispose`)
 * when the process ended and its output is out, or as soon as the client is gone; what that does to a process still
 * running is the backend's decision. A call that ends because its client left has an aborted `call.signal`.
 */
export interface ProcessStreams extends AsyncDisposable {
  /** `end()` comes when the client half-closes; on a terminal, and with stdin_once unset, that must not hang up. */
  readonly stdin?: Writable | undefined;
  /** Read only as fast as the client takes it; paused, never drained by force. */
  readonly stdout?: Readable | undefined;
  readonly stderr?: Readable | undefined;
  resize?(size: TerminalSize): void;
  /**
   * Resolves when the process has exited, with 128 + n after signal n, or when there is nothing more to attach to,
   * with undefined. Output still in the streams is sent after it. A rejection is told to the client.
   */
  readonly exited: Promise<{ readonly exitCode: number } | undefined>;
}

/** What the streaming server needs of the rest of the daemon. Rejections are told to the client by their message. */
export interface StreamingBackend {
  exec(call: Call, request: ExecStreamRequest): Promise<ProcessStreams>;
  attach(call: Call, request: AttachStreamRequest): Promise<ProcessStreams>;
  /** A connection to the port inside the pod, half-open where that can be: `end()` half-closes it, `destroy()` resets. */
  portForward(call: Call, request: PortForwardStreamRequest): Promise<Duplex>;
}
