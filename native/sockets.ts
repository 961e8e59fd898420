import { unlink } from "node:fs/promises";
import { helperPath } from "./binding.ts";
import { getMachine, type Machine, readable, type Watch, writable } from "./events.ts";
import { type Child, type ExitStatus, spawn } from "./process.ts";
import { check, checkValue, errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

const streamType = 1;
const datagramType = 2;
const seqpacketType = 5;
const maxMessageBytes = 64 * 1024;
const messagesPerTurn = 16;

/** Who hears what a packet socket receives. */
export interface SeqpacketHandlers {
  /** One packet, as it was sent. */
  message(packet: Buffer): void;
  /** Once: the other side has gone (no error), or reading failed. Not called after `close()`. */
  closed(error: SyscallError | undefined): void;
}

/** A connected unix SEQPACKET socket, such as conmon's attach socket. Keeps the event loop alive until it is closed. */
export interface SeqpacketSocket extends AsyncDisposable {
  /** Sends one packet; waits while the other side is slow. @throws {SyscallError} EPIPE once it is closed. */
  send(packet: Uint8Array): Promise<void>;
  /** After what was sent: the other side reads end-of-file, this side goes on reading. */
  endSending(): void;
  /** Stops and resumes reading, so that a slow consumer slows the sender. */
  pause(): void;
  resume(): void;
  close(): void;
}

interface Waiting {
  readonly packet: Uint8Array;
  readonly sent: () => void;
  readonly failed: (error: SyscallError) => void;
}

/** The owner of one packet socket. */
class PacketSocket implements SeqpacketSocket {
  readonly #machine: Machine;
  readonly #fd: number;
  readonly #handlers: SeqpacketHandlers;
  readonly #watch: Watch;
  readonly #relay: Child | undefined;
  readonly #queue: Waiting[] = [];
  #isPaused = false;
  #isEnding = false;
  #isOpen = true;
  #isForsaken = false;

  constructor(machine: Machine, fd: number, handlers: SeqpacketHandlers, relay?: Child) {
    this.#machine = machine;
    this.#fd = fd;
    this.#handlers = handlers;
    this.#relay = relay;
    this.#watch = machine.watch(fd, readable, () => this.#turn());
  }

  async send(packet: Uint8Array): Promise<void> {
    const result = this.#queue.length > 0 ? -errno.EAGAIN : this.#sendNow(packet);
    if (result >= 0) return;
    if (result !== -errno.EAGAIN) throw new SyscallError("send", -result);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#queue.push({ packet, sent: resolve, failed: reject });
    this.#arm();
    await promise;
  }
  endSending(): void {
    this.#isEnding = true;
    this.#flush();
  }
  pause(): void {
    this.#isPaused = true;
  }
  resume(): void {
    this.#isPaused = false;
    this.#arm();
  }
  close(): void {
    this.#isForsaken = true;
    this.#release();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #release(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#watch.stop();
    this.#machine.addon.close(this.#fd);
    for (const waiting of this.#queue.splice(0)) waiting.failed(new SyscallError("send", errno.EPIPE));
  }
  async #end(error: SyscallError | undefined): Promise<void> {
    this.#release();
    const reason = error ?? relayFailure(await this.#relay?.exited);
    if (!this.#isForsaken) this.#handlers.closed(reason);
  }
  #sendNow(packet: Uint8Array): number {
    return this.#isOpen ? this.#machine.addon.send(this.#fd, packet) : -errno.EPIPE;
  }
  #arm(): void {
    if (this.#isOpen) this.#watch.arm((this.#isPaused ? 0 : readable) | (this.#queue.length > 0 ? writable : 0));
  }
  #turn(): void {
    for (let count = 0; count < messagesPerTurn && this.#isOpen && !this.#isPaused; count++)
      if (!this.#receive()) break;
    this.#flush();
    this.#arm();
  }
  /** Whether there may be more. */
  #receive(): boolean {
    const packet = this.#machine.addon.read(this.#fd, maxMessageBytes);
    if (packet === -errno.EAGAIN) return false;
    if (typeof packet !== "number" && packet.length > 0) {
      this.#handlers.message(packet);
      return true;
    }
    void this.#end(typeof packet === "number" ? new SyscallError("read", -packet) : undefined);
    return false;
  }
  #flush(): void {
    for (let next = this.#queue[0]; next; next = this.#queue[0]) {
      const result = this.#sendNow(next.packet);
      if (result === -errno.EAGAIN) return;
      this.#queue.shift();
      if (result < 0) next.failed(new SyscallError("send", -result));
      else next.sent();
    }
    if (this.#isEnding && this.#isOpen) this.#machine.addon.shutdownWrite(this.#fd); // again is harmless
  }
}

/**
 * Connects to a unix SEQPACKET socket, whose path may exceed 107 bytes.
 * @throws {SyscallError} ENOENT, ECONNREFUSED, EPROTOTYPE for another kind of socket, EAGAIN if its queue is full
 */
export async function connectSeqpacket(path: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket> {
  const machine = getMachine();
  const fd = check("connect", machine.addon.connectUnix(requireAbsolute("connect", path), seqpacketType), path);
  return new PacketSocket(machine, fd, handlers);
}

/** The helper hands its own descriptors out and keeps nothing of ours. */
async function startRelay({ addon }: Machine, peer: number): Promise<{ readonly relay: Child; readonly fd: number }> {
  const [ours, theirs] = checkValue("socketpair", addon.socketPair(seqpacketType));
  try {
    const stdio = [{ fd: peer }, { fd: theirs }, "null"] as const;
    return {
      relay: await spawn({ argv: [helperPath, "relay"], env: {}, cwd: "/", stdio, processGroup: true }),
      fd: ours,
    };
  } catch (thrown) {
    addon.close(ours);
    throw thrown;
  } finally {
    addon.close(theirs);
  }
}

/**
 * As `connectSeqpacket`, for a peer that must never wait for this process: a process of its own takes what the peer
 * sends, also while this one is stopped or stuck, and keeps up to 4 MiB of it. When that is full and nothing was taken
 * for a second, the connection is given up, and `closed` hears ENOBUFS.
 *
 * @throws {SyscallError} as `connectSeqpacket`, or as `spawn`
 */
export async function connectThroughRelay(path: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket> {
  const machine = getMachine();
  const { addon } = machine;
  const peer = check("connect", addon.connectUnix(requireAbsolute("connect", path), seqpacketType), path);
  try {
    const { relay, fd } = await startRelay(machine, peer);
    return new PacketSocket(machine, fd, handlers, relay);
  } finally {
    addon.close(peer);
  }
}

function relayFailure(status: ExitStatus | undefined): SyscallError | undefined {
  if (status === undefined || (status.kind === "exited" && status.code === 0)) return undefined;
  return new SyscallError("relay", errno.ENOBUFS);
}

/**
 * Sends descriptors with at least one byte over a unix socket; they stay open here.
 * @throws {SyscallError} EAGAIN if it would have to wait
 */
export function sendFds(socketFd: number, fds: readonly number[], data: Uint8Array): void {
  check("sendmsg", getMachine().addon.sendFds(socketFd, fds, data));
}

/**
 * Receives bytes and the descriptors that came with them (16 at most), which are the caller's to close and are
 * close-on-exec. Empty data is the end of the stream.
 * @throws {SyscallError} EAGAIN if there is nothing yet
 */
export function recvFds(
  socketFd: number,
  maxBytes: number,
): { readonly data: Buffer; readonly fds: readonly number[] } {
  const [data, fds] = checkValue("recvmsg", getMachine().addon.recvFds(socketFd, maxBytes));
  return { data, fds };
}

/** A socket on which a runtime hands over the master side of a container's terminal (`--console-socket`). */
export interface ConsoleSocket extends AsyncDisposable {
  /** The terminal's descriptor, the caller's to close. Rejects if the socket is disposed before one came. */
  readonly terminal: Promise<number>;
}

/** The first descriptor sent is the terminal; more of them would only leak. */
function takeTerminal({ addon }: Machine, connection: number): number {
  const [, fds] = checkValue("recvmsg", addon.recvFds(connection, 4096));
  const [terminal, ...others] = fds;
  for (const other of others) addon.close(other);
  if (terminal === undefined) throw new SyscallError("recvmsg", errno.EBADMSG);
  return terminal;
}

/**
 * Listens at a path, which must not exist, for one terminal.
 * @throws {SyscallError} EADDRINUSE
 * @see https://github.com/opencontainers/runc/blob/v1.1.5/docs/terminals.md
 */
export async function openConsoleSocket(path: string): Promise<ConsoleSocket> {
  const machine = getMachine();
  const { addon } = machine;
  const listener = check("bind", addon.listenUnix(requireAbsolute("bind", path), streamType), path);
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  promise.catch(() => undefined); // nobody need be waiting when the socket is disposed
  const open = new Map<number, Watch>();
  const close = (fd: number): void => {
    open.get(fd)?.stop();
    if (open.delete(fd)) addon.close(fd);
  };
  const onConnection = (): void => {
    const connection = addon.accept(listener);
    open.get(listener)?.arm(readable);
    if (connection < 0) return;
    const onMessage = (): void => {
      try {
        resolve(takeTerminal(machine, connection));
      } catch (thrown) {
        reject(thrown);
      }
      close(connection);
    };
    open.set(connection, machine.watch(connection, readable, onMessage));
  };
  open.set(listener, machine.watch(listener, readable, onConnection));
  return {
    terminal: promise,
    [Symbol.asyncDispose]: async () => {
      reject(new Error("console socket was closed"));
      for (const fd of open.keys()) close(fd);
      await unlink(path).catch(() => undefined);
    },
  };
}

/** Sets the size of a terminal, in characters. @throws {SyscallError} ENOTTY */
export function setWindowSize(terminalFd: number, size: { readonly rows: number; readonly columns: number }): void {
  check("ioctl", getMachine().addon.setWindowSize(terminalFd, size.rows, size.columns));
}

/**
 * Sends one datagram to a unix socket, named by its path or, behind an `@`, in the abstract namespace. Never waits.
 *
 * @throws {SyscallError} ECONNREFUSED or ENOENT where nobody listens, EAGAIN where the receiver's queue is full.
 */
export function sendDatagram(address: string, message: string): void {
  const { addon } = getMachine();
  const name = address.startsWith("@") ? address : requireAbsolute("connect", address);
  const fd = check("connect", addon.connectUnix(name, datagramType), address);
  const sent = addon.send(fd, Buffer.from(message));
  addon.close(fd);
  check("send", sent, address);
}
