import { Readable, Writable } from "node:stream";
import type { Duplex } from "node:stream";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call } from "../cri-api/index.ts";
import { connectInNamespace } from "../native/index.ts";
import type { SeqpacketSocket } from "../native/index.ts";
import type { WindowSize } from "../oci/index.ts";
import { requireContainer } from "./container-status.ts";
import type { ContainerIn } from "./container.ts";
import { execCommandOf } from "./exec-command.ts";
import type { Host } from "./host.ts";
import { containerPathsOf, sandboxPathsOf } from "./layout.ts";
import { usesHostNetwork } from "./network.ts";
import { runtimeOf } from "./runtimes.ts";
import { requireReadySandbox } from "./sandbox-list.ts";

/** The open ends of a process in a container, or of a container attached to. Disposing lets go of them. */
export interface OpenStreams extends AsyncDisposable {
  readonly stdin?: Writable | undefined;
  readonly stdout?: Readable | undefined;
  readonly stderr?: Readable | undefined;
  resize?(size: WindowSize): void;
  /** Undefined where there is no exit code to tell: the end of an attach. */
  readonly exited: Promise<{ readonly exitCode: number } | undefined>;
}

interface StreamChoice {
  readonly containerId: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/** What Exec, Attach and PortForward open once a client has come for its URL; ids may be prefixes. */
export interface ContainerStreams {
  /** @throws {CriError} `NotFound`, `FailedPrecondition` for a container that does not run. */
  admitContainer(idOrPrefix: string): void;
  /** @throws {CriError} `NotFound`, `FailedPrecondition` for a pod that is not ready. */
  admitPodSandbox(idOrPrefix: string): void;
  exec(call: Call, request: StreamChoice & { readonly cmd: readonly string[] }): Promise<OpenStreams>;
  attach(call: Call, request: StreamChoice): Promise<OpenStreams>;
  /** A connection to a port on the pod's loopback, over IPv4 and then IPv6. */
  portForward(call: Call, request: { readonly podSandboxId: string; readonly port: number }): Promise<Duplex>;
}

export function createContainerStreams(host: Host): ContainerStreams {
  return {
    admitContainer: (id) => void requireRunning(host, id),
    admitPodSandbox: (id) => void requireReadySandbox(host, id),
    exec: (call, request) => openExec(call, request, host),
    attach: (call, request) => openAttach(call, request, host),
    portForward: (call, request) => openPort(call, request, host),
  };
}

/** @throws {CriError} `NotFound`, `FailedPrecondition` also for a container whose grace period is over. */
export function requireExecutable(host: Host, idOrPrefix: string): ContainerIn<"running"> {
  const container = requireRunning(host, idOrPrefix);
  if (!host.stops.isKilling(container.id)) return container;
  throw new CriError(Code.FailedPrecondition, `cannot start exec: container "${container.id}" is being killed`);
}

/** @throws {CriError} `NotFound`, `FailedPrecondition`. */
export function requireRunning(host: Host, idOrPrefix: string): ContainerIn<"running"> {
  const container = requireContainer(host, idOrPrefix);
  if (container.state === "running") return container;
  throw new CriError(Code.FailedPrecondition, `container "${container.id}" is ${container.state}, not running`);
}

/** A client that leaves takes its command along: nobody could reach it any more. */
async function openExec(
  call: Call,
  request: StreamChoice & { readonly cmd: readonly string[] },
  host: Host,
): Promise<OpenStreams> {
  const container = requireExecutable(host, request.containerId);
  const command = await execCommandOf(container, { args: request.cmd, terminal: request.tty }, host);
  const streams = await runtimeOf(host, container.runtime).exec(call.signal, command);
  if (!request.stdin && !request.tty) streams.stdin.end();
  if (!request.stdout) streams.stdout.resume();
  if (!request.stderr) streams.stderr?.resume();
  return {
    stdin: request.stdin ? streams.stdin : undefined,
    stdout: request.stdout ? streams.stdout : undefined,
    stderr: request.stderr ? streams.stderr : undefined,
    resize: (size) => streams.resize(size),
    exited: streams.exited.then((exitCode) => ({ exitCode })),
    [Symbol.asyncDispose]: () => streams.kill(),
  };
}

/** conmon marks each packet of output with its stream. */
const stdoutMark = 2;
const stderrMark = 3;

/** Joins the output of a running container from now on; nothing of the past is replayed. */
async function openAttach(call: Call, request: StreamChoice, host: Host): Promise<OpenStreams> {
  const container = requireRunning(host, request.containerId);
  const { bundle } = containerPathsOf(host.layout, container.id);
  const runtime = runtimeOf(host, container.runtime);
  const { promise: exited, resolve: close, reject: drop } = Promise.withResolvers<undefined>();
  exited.catch(() => undefined); // a client that has left does not hear it
  const resume = (): void => socket.resume();
  const outputs = new Map<number | undefined, Readable>();
  if (request.stdout) outputs.set(stdoutMark, new Readable({ read: resume }));
  if (request.stderr) outputs.set(stderrMark, new Readable({ read: resume }));
  const socket = await runtime.attach(bundle, {
    message(packet) {
      const isRoomLeft = outputs.get(packet[0])?.push(packet.subarray(1)) ?? true;
      if (!isRoomLeft) socket.pause();
    },
    closed(error) {
      for (const output of outputs.values()) output.push(null);
      if (error) drop(new CriError(Code.ResourceExhausted, "output was not taken in time", { cause: error }));
      else close(undefined);
    },
  });
  call.log.info({ containerId: container.id }, "client attached");
  return {
    stdin: request.stdin && container.config.stdin ? inputOf(socket, container.config.stdinOnce) : undefined,
    stdout: outputs.get(stdoutMark),
    stderr: outputs.get(stderrMark),
    resize: (size) => {
      runtime.resize(bundle, size).catch((thrown: unknown) => {
        call.log.debug({ containerId: container.id, err: String(thrown) }, "terminal not resized");
      });
    },
    exited,
    [Symbol.asyncDispose]: async () => socket.close(),
  };
}

/** What conmon reads at once. */
const maxPacketBytes = 32_768;

/** Only with stdin_once does the end of the client's input become the end of the container's. */
function inputOf(socket: SeqpacketSocket, isOnce: boolean): Writable {
  return new Writable({
    async write(chunk: Buffer, _encoding, done) {
      try {
        for (let at = 0; at < chunk.length; at += maxPacketBytes) {
          await socket.send(chunk.subarray(at, at + maxPacketBytes));
        }
        done();
      } catch (thrown) {
        done(thrown instanceof Error ? thrown : new Error(String(thrown)));
      }
    },
    final(done) {
      if (isOnce) socket.endSending();
      done();
    },
  });
}

async function openPort(
  call: Call,
  request: { readonly podSandboxId: string; readonly port: number },
  host: Host,
): Promise<Duplex> {
  const sandbox = requireReadySandbox(host, request.podSandboxId);
  const { netns } = sandboxPathsOf(host.layout, sandbox.id);
  const namespace = usesHostNetwork(sandbox.config) ? "/proc/self/ns/net" : netns;
  const socket = await connectInNamespace(
    namespace,
    { host: "localhost", port: request.port },
    { signal: call.signal },
  );
  socket.allowHalfOpen = true;
  return socket;
}
