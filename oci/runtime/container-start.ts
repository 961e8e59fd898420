import { constants } from "node:fs";
import { access, open, readdir, readlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { constants as osConstants } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { isAlive, isAsleep, isEnding, openProcess, removeFiles } from "../../native/index.ts";
import { codeOf } from "./cgroup-processes.ts";
import type { RuntimeHost } from "./host.ts";
import { invokeRuntime } from "./invocation.ts";
import { isLive, readStat } from "./process-tree.ts";
import { assertId } from "./state.ts";

type StartHost = Pick<RuntimeHost, "config" | "program" | "states">;

/** As long as a command of the runtime may take. */
const gateDeadlineMs = 60_000;
const { SIGCONT, SIGSTOP } = osConstants.signals;

/** Where both runtimes keep init waiting; it is taken away when the container is no longer `created`. */
export function gateOf(host: Pick<RuntimeHost, "config">, id: string): string {
  assertId(id);
  return join(host.config.root, id, "exec.fifo");
}

/**
 * Lets init go the way the runtime's own `start` does, without the 4 to 15 ms that starting that program takes. What is
 * out of the ordinary in any way (an unknown runtime, hooks, an init that is gone, a FIFO that is not as expected) is
 * left to `runtime start`, which also says what is wrong.
 */
export async function startContainer(host: StartHost, signal: AbortSignal, id: string): Promise<void> {
  signal.throwIfAborted();
  const state = await host.states.load(id);
  if (state?.opensGate && isAlive(state.init) && (await letGo(host, signal, id, state.init))) return;
  await invokeRuntime(host.config, signal, {
    args: ["start", id],
    failure: { what: `cannot start container "${id}"` },
  });
}

async function letGo(host: StartHost, signal: AbortSignal, id: string, init: ProcessIdentity): Promise<boolean> {
  const way = ways[host.program];
  if (!way) return false;
  const path = gateOf(host, id);
  if (way.isDisturbed(init)) return await whileStopped(signal, init, () => openGate(way, path, init));
  return await openGate(way, path, init);
}

async function openGate(way: Way, path: string, init: ProcessIdentity): Promise<boolean> {
  let gate: FileHandle;
  try {
    gate = await open(path, way.flags | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return false;
  }
  try {
    if (!(await gate.stat()).isFIFO() || !(await way.pass(gate, init))) return false;
    // Last: what a kill leaves before it is a gate where nobody waits, and `isStarted` knows that.
    await removeFiles([path]);
    return true;
  } finally {
    await gate.close();
  }
}

/** The process does nothing until the work is done. */
async function whileStopped<T>(signal: AbortSignal, init: ProcessIdentity, work: () => Promise<T>): Promise<T> {
  using handle = openProcess(init);
  handle?.signal(SIGSTOP);
  try {
    for (;;) {
      const stat = await readStat(init.pid);
      if (!isLive(stat) || stat.state === "T") break;
      await sleep(1, undefined, { signal });
    }
    return await work();
  } finally {
    handle?.signal(SIGCONT);
  }
}

interface Way {
  readonly flags: number;
  /** Whether opening the gate would be fatal to init unless it is stopped meanwhile. */
  isDisturbed(init: ProcessIdentity): boolean;
  /** False when init was not let go; then nothing has changed. */
  pass(gate: FileHandle, init: ProcessIdentity): Promise<boolean>;
}

/** crun's init reads one byte, runc's writes one: only then do they execute the command. */
const ways: Readonly<Record<string, Way>> = {
  crun: {
    flags: constants.O_WRONLY,
    // A writer that died here left it reading "end of file" in a loop; "nothing yet" it would then take for an error.
    isDisturbed: (init) => !isAsleep(init),
    async pass(gate) {
      await gate.write("\0").catch((thrown: unknown) => {
        if (codeOf(thrown) !== "EPIPE") throw thrown;
        // a stop came in between
        throw new CriError(Code.FailedPrecondition, "the container was killed before it was started", {
          cause: thrown,
        });
      });
      return true;
    },
  },
  runc: {
    flags: constants.O_RDONLY,
    isDisturbed: () => false,
    pass: readByte,
  },
};

/**
 * Opening it has woken init, which writes within microseconds, or whenever a busy machine lets it. From then on there is
 * no way back: to whoever asks next, `runtime start` too, init would have nothing more to say.
 */
async function readByte(gate: FileHandle, init: ProcessIdentity): Promise<boolean> {
  const deadline = performance.now() + gateDeadlineMs;
  for (let pauseMs = 0; performance.now() < deadline; pauseMs = Math.min(pauseMs + 1, 10)) {
    const wasAlive = isAlive(init); // asked before reading: it may write and end
    const count = await gate.read(Buffer.alloc(1), 0, 1).then(
      ({ bytesRead }) => bytesRead,
      () => 0, // EAGAIN: init has it open and has not written yet
    );
    if (count > 0) return true;
    if (!wasAlive) return false;
    await sleep(pauseMs);
  }
  throw new CriError(Code.DeadlineExceeded, `the container's init did not start within ${gateDeadlineMs / 1000} s`);
}

/** Whether `start` was done: then there is no FIFO, or init, which lives, has given it up to execute the command. */
export async function isStarted(host: Pick<RuntimeHost, "config" | "states">, id: string): Promise<boolean> {
  const path = gateOf(host, id);
  try {
    await access(path);
  } catch {
    return true;
  }
  const state = await host.states.load(id);
  if (!state || isEnding(state.init) || (await waitsAtGate(id, state.init))) return false;
  await removeFiles([path]); // the start was cut short before it came to that
  return true;
}

async function waitsAtGate(id: string, { pid }: ProcessIdentity): Promise<boolean> {
  const directory = `/proc/${pid}/fd`;
  const links = (await readdir(directory)).map((fd) => readlink(join(directory, fd)).catch(() => ""));
  return (await Promise.all(links)).some((link) => link.endsWith(join("/", id, "exec.fifo")));
}
