import { constants } from "node:fs";
import { access, open, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessIdentity } from "../../native/index.ts";
import { isAlive } from "../../native/index.ts";
import { codeOf } from "./cgroup-processes.ts";
import type { RuntimeHost } from "./host.ts";
import { invokeRuntime } from "./invocation.ts";
import { assertId } from "./state.ts";

type StartHost = Pick<RuntimeHost, "config" | "program" | "states">;

/** As long as a command of the runtime may take. */
const gateDeadlineMs = 60_000;

/** Where both runtimes keep init waiting; it is there exactly as long as the container is `created`. */
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
  if (state?.opensGate && isAlive(state.init) && (await openGate(host, id, state.init))) return;
  await invokeRuntime(host.config, signal, {
    args: ["start", id],
    failure: { what: `cannot start container "${id}"` },
  });
}

async function openGate(host: StartHost, id: string, init: ProcessIdentity): Promise<boolean> {
  const way = ways[host.program];
  if (!way) return false;
  const path = gateOf(host, id);
  let gate: FileHandle;
  try {
    gate = await open(path, way.flags | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  } catch {
    return false;
  }
  try {
    return (await gate.stat()).isFIFO() && (await way.pass(gate, path, init));
  } finally {
    await gate.close();
  }
}

interface Way {
  readonly flags: number;
  /** False when init was not let go; then nothing has changed. */
  pass(gate: FileHandle, path: string, init: ProcessIdentity): Promise<boolean>;
}

/** crun's init reads one byte, runc's writes one: only then do they execute the command. */
const ways: Readonly<Record<string, Way>> = {
  crun: {
    flags: constants.O_WRONLY,
    async pass(gate, path) {
      await unlink(path); // first, as crun does it: a container that runs never looks like a created one
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
    async pass(gate, path, init) {
      if (!(await readByte(gate, init))) return false;
      await unlink(path);
      return true;
    },
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

/** Whether `start` was done; both runtimes take the FIFO away then. */
export async function isStarted(host: Pick<RuntimeHost, "config">, id: string): Promise<boolean> {
  try {
    await access(gateOf(host, id));
    return false;
  } catch {
    return true;
  }
}
