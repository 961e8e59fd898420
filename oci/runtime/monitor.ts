import type { ProcessIdentity, SeqpacketHandlers, SeqpacketSocket } from "../../native/index.ts";
import type { WindowSize } from "./types.ts";

/** What a monitor must be told to bring up one container. */
export interface MonitorLaunch {
  readonly id: string;
  readonly bundle: string;
  readonly logPath: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  /** Writes what the runtime is to find in the bundle, while the monitor starts up. */
  prepare(): Promise<void>;
}

export type MonitorOutcome =
  | { readonly kind: "created"; readonly initPid: number; readonly monitor: ProcessIdentity | undefined }
  | { readonly kind: "failed"; readonly output: string };

/**
 * The process that stands by a container while daemons come and go: it holds its streams, writes its log in the CRI
 * format, and writes its exit code to `<exit directory>/<id>`. All that the rest of this room knows of it is here.
 */
export interface Monitor {
  /**
   * Runs the runtime's `create` below a monitor that is nobody's child. Rejects with the signal's reason. What a failed
   * one has started is there until `endHalfMade`.
   */
  launch(signal: AbortSignal, launch: MonitorLaunch): Promise<MonitorOutcome>;
  /**
   * Returns when the container's monitor is gone: on its own within `graceMs`, else killed with what it started.
   *
   * @throws {CriError} `Internal` while somebody of them does not die.
   */
  end(bundle: string, graceMs: number): Promise<void>;
  /** Ends all that a create which failed, or whose end the daemon did not live to see, has started. @throws as `end`. */
  endHalfMade(bundle: string): Promise<void>;
  /** Whether it saw the kernel kill for want of memory. */
  sawOom(bundle: string): Promise<boolean>;
  /** Asks for a fresh log file; there is no answer but the file. @throws {CriError} `FailedPrecondition` when it is gone. */
  reopenLog(bundle: string): Promise<void>;
  /** Whether the monitor writes to exactly this file already, told by its `identity` as `resolveForeignPaths` answers it. */
  holdsFile(signal: AbortSignal, bundle: string, identity: string): Promise<boolean>;
  resize(bundle: string, size: WindowSize): Promise<void>;
  attach(bundle: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket>;
}
