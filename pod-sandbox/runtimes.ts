import { Code, CriError } from "../cri-api/index.ts";
import { openProcess, untilAborted } from "../native/index.ts";
import type { Runtime } from "../oci/index.ts";
import { nowNs } from "./clock.ts";
import { exists } from "./layout.ts";

export type Runtimes = ReadonlyMap<string, Runtime>;

/**
 * The runtime that a pod or container was made with. Where the configuration has lost it, one that knows how to kill
 * and to see an end, and refuses the rest.
 */
export function runtimeOf({ runtimes }: { readonly runtimes: Runtimes }, handler: string): Runtime {
  return runtimes.get(handler) ?? createRetiredRuntime(handler);
}

/** When nobody is left who saw how a process ended. */
const unknownExitCode = 255;

/** Needs nothing but the process itself; what a delete would have to clear stays until the handler is back. */
export function createRetiredRuntime(handler: string): Runtime {
  const refuse = async (): Promise<never> => {
    throw new CriError(Code.FailedPrecondition, `runtime handler "${handler}" is not configured any more`);
  };
  return {
    handler,
    version: "",
    features: { recursiveReadOnlyMounts: false, userNamespaces: false, networkDevices: false },
    create: refuse,
    start: refuse,
    isStarted: async () => false,
    async kill(_id, init, signal) {
      using process = openProcess(init);
      process?.signal(signal);
    },
    async delete(_signal, _id, bundle) {
      if (await exists(bundle)) await refuse(); // gone after a reboot, as is all that a runtime had made
    },
    execSync: refuse,
    exec: refuse,
    update: refuse,
    reopenLog: refuse,
    resize: refuse,
    attach: refuse,
    readExit: async () => undefined,
    async waitForExit(_id, init, _monitor, signal) {
      signal.throwIfAborted();
      using process = openProcess(init);
      if (process) await untilAborted(process.exited, signal);
      return { exitCode: unknownExitCode, finishedAtNs: nowNs(), oomKilled: false };
    },
    findOomKill: async () => undefined,
    cgroupPaths: async () => undefined,
  };
}
