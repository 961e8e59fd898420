import type { Readable, Writable } from "node:stream";
import type { Logger } from "../../cri-api/index.ts";
import type { ProcessIdentity, SeqpacketHandlers, SeqpacketSocket } from "../../native/index.ts";
import type { OciResources, Process, Spec } from "../spec/oci-types.ts";
import type { CgroupPaths } from "./cgroup-paths.ts";
import type { OomKill } from "./kernel-log.ts";

/** One runtime handler: which programs run its containers and where they keep their state. */
export interface RuntimeConfig {
  readonly handler: string;
  /** Absolute path of crun or runc (or of what behaves like them). */
  readonly path: string;
  /** State root of the runtime, on a tmpfs: what it holds means nothing after a reboot. */
  readonly root: string;
  /** Absolute path of conmon. */
  readonly monitorPath: string;
  /** Our own volatile files about the containers of this handler; only this runtime writes below it. */
  readonly stateDir: string;
  readonly cgroupDriver: "cgroupfs" | "systemd";
}

export interface RuntimeParts {
  readonly log: Logger;
}

/** What a runtime and this kernel can do together; kubelet schedules by it. */
export interface RuntimeFeatures {
  readonly recursiveReadOnlyMounts: boolean;
  readonly userNamespaces: boolean;
  /** Whether it moves interfaces of the host into a container. */
  readonly networkDevices: boolean;
}

/** A user as the host numbers him. */
export interface HostUser {
  readonly uid: number;
  readonly gid: number;
}

/** A container to be made; its bundle directory exists, `config.json` in it is written by `create`. */
export interface CreateProcess {
  readonly id: string;
  readonly bundle: string;
  readonly spec: Spec;
  /** Absolute path of the log file in the CRI format; "" writes no log. */
  readonly logPath: string;
  /** The log file is there already, so that it stays where the create is undone. */
  readonly keepsLog?: boolean;
  readonly tty: boolean;
  readonly stdin: boolean;
  /** The first attached client that closes its input closes the container's. */
  readonly stdinOnce: boolean;
  /** In a user namespace: who the process is outside of it. Its pipes become his, so that he can open `/dev/stdout`. */
  readonly hostUser?: HostUser;
  /** As its user knows it, for errors. */
  readonly imageName?: string;
}

export interface CreatedProcess {
  readonly init: ProcessIdentity;
  /** Absent when the monitor was gone before it could be looked at. */
  readonly monitor: ProcessIdentity | undefined;
}

/** How a container's init process ended. A signal n reads as 128 + n; 255 when nobody is left who saw it. */
export interface ContainerExit {
  readonly exitCode: number;
  readonly finishedAtNs: bigint;
  readonly oomKilled: boolean;
}

/** A process to be run inside a running container: the container's own `process` with what differs put in its place. */
export interface ExecCommand {
  readonly id: string;
  readonly bundle: string;
  readonly process: Process;
  /** As for the container's own process. */
  readonly hostUser?: HostUser;
  readonly imageName?: string;
}

export interface ExecLimits {
  /** Milliseconds until the command and all that descends from it is killed; 0 = never. */
  readonly timeoutMs: number;
  /** Per stream; what comes after is read and thrown away. */
  readonly maxOutputBytes: number;
}

export interface ExecResult {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly exitCode: number;
}

/** Characters, not pixels. */
export interface WindowSize {
  readonly width: number;
  readonly height: number;
}

/** A command running in a container with its streams open. With a tty there is no stderr. */
export interface ExecStreams {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable | undefined;
  /** The command's exit code; never rejects. */
  readonly exited: Promise<number>;
  /** Does nothing without a tty or after the end. */
  resize(size: WindowSize): void;
  /** Kills the command and all that descends from it; settles when they are gone. */
  kill(): Promise<void>;
}

/**
 * Containers of one runtime handler as operating system processes. What is known of them is in files below `stateDir`, so
 * that a daemon started later carries on with the same ids. Operations on one id are not
 * serialised: the caller's keyed lock does that. Every wait ends with the signal given.
 *
 * @see https://github.com/opencontainers/runtime-spec/blob/v1.1.0/runtime.md
 */
export interface Runtime {
  readonly handler: string;
  readonly version: string;
  readonly features: RuntimeFeatures;
  /**
   * Writes `config.json` and brings a container to `created`, its init waiting for `start`. When it fails, or the signal
   * ends it, nothing is left: no process, cgroup, state or file but those that were there before.
   *
   * @throws {CriError} `InvalidArgument` when the command, working directory or user cannot be had in the root
   * filesystem; `FailedPrecondition` when the id is taken; `DeadlineExceeded`; else `Internal`.
   */
  create(signal: AbortSignal, process: CreateProcess): Promise<CreatedProcess>;
  /** @throws {CriError} `FailedPrecondition` when it is not in `created`. */
  start(signal: AbortSignal, id: string): Promise<void>;
  /** Whether `start` was done; true of a container that has ended too. */
  isStarted(id: string): Promise<boolean>;
  /**
   * Signals init by pidfd; no process at all if it has ended. `all` with SIGKILL kills every process in the
   * container's cgroup, also after init's end, and returns when they are gone (or after 10 s in an uninterruptible sleep).
   */
  kill(id: string, init: ProcessIdentity, signal: number, options?: { readonly all?: boolean }): Promise<void>;
  /** Kills what lives, and removes the container with its cgroups, exit file and monitor. Idempotent. */
  delete(signal: AbortSignal, id: string, bundle: string): Promise<void>;
  /**
   * Runs a command with no standard input and no terminal to its end and returns its output.
   *
   * @throws {CriError} `DeadlineExceeded` after `timeoutMs`, `InvalidArgument` when the command cannot be executed,
   * `FailedPrecondition` when the container is not running. The command's processes are gone by then.
   */
  execSync(signal: AbortSignal, exec: ExecCommand, limits: ExecLimits): Promise<ExecResult>;
  /**
   * Starts a command and hands its streams out once it runs; the signal ends only the starting.
   *
   * @throws {CriError} as `execSync`.
   */
  exec(signal: AbortSignal, exec: ExecCommand): Promise<ExecStreams>;
  /** Changes the limits of a container: all of them, or on an error none. @throws {CriError} `InvalidArgument` or `Internal`. */
  update(signal: AbortSignal, id: string, resources: OciResources): Promise<void>;
  /** Makes the monitor write to a fresh file at `logPath` and waits for it. @throws {CriError} `FailedPrecondition` without a monitor; then no file is made. */
  reopenLog(signal: AbortSignal, bundle: string, logPath: string): Promise<void>;
  /** Sets the size of a tty container's terminal. @throws {CriError} `FailedPrecondition` without a monitor. */
  resize(bundle: string, size: WindowSize): Promise<void>;
  /**
   * Packets from it are 2 (stdout) or 3 (stderr) and data. Who takes them slowly slows the container; who takes none
   * for a second while 4 MiB wait is dropped with ENOBUFS.
   */
  attach(bundle: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket>;
  /** The exit that the monitor wrote down, if it has. */
  readExit(id: string): Promise<ContainerExit | undefined>;
  /** Resolves soon after init's end, also long after it. Rejects only with the signal's reason. */
  waitForExit(
    id: string,
    init: ProcessIdentity,
    monitor: ProcessIdentity | undefined,
    signal: AbortSignal,
  ): Promise<ContainerExit>;
  /** Which process of the container the kernel killed for want of memory, where its log still tells. */
  findOomKill(id: string): Promise<OomKill | undefined>;
  /** Where the container's cgroups are, as found at create. */
  cgroupPaths(id: string): Promise<CgroupPaths | undefined>;
}
