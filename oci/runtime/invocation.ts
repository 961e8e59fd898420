import { Code, CriError } from "../../cri-api/index.ts";
import { run } from "../../native/index.ts";
import { runtimeFailure } from "./failure.ts";
import type { FailureContext } from "./failure.ts";
import type { RuntimeConfig } from "./types.ts";

/** Nothing of the daemon's own environment reaches runtimes, monitors or hooks. */
export const runtimeEnvironment: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
};

/** No runtime command but `create` and `exec` waits for anything; one that takes this long is stuck. */
const commandDeadlineMs = 60_000;
const maxOutputBytes = 256 * 1024;

export function globalArguments(config: RuntimeConfig): readonly string[] {
  return [`--root=${config.root}`];
}

/** Directories whose names are kept out of error texts. */
export function hiddenDirectories(config: RuntimeConfig): readonly string[] {
  return [config.root, config.stateDir, "/sys/fs/cgroup"];
}

interface Invocation {
  readonly args: readonly string[];
  readonly input?: string;
  readonly failure: Pick<FailureContext, "what" | "executable">;
  /** A minute, unless said. */
  readonly deadlineMs?: number;
}

/**
 * Runs one command of the runtime to its end and returns its output.
 *
 * @throws {CriError} as `runtimeFailure` reads the runtime's words; `DeadlineExceeded` when it hangs.
 */
export async function invokeRuntime(
  config: RuntimeConfig,
  signal: AbortSignal,
  invocation: Invocation,
): Promise<string> {
  const { args, input, failure, deadlineMs = commandDeadlineMs } = invocation;
  const ownDeadline = AbortSignal.timeout(deadlineMs);
  try {
    const { status, stdout, stderr } = await run({
      argv: [config.path, ...globalArguments(config), ...args],
      env: runtimeEnvironment,
      maxOutputBytes,
      signal: AbortSignal.any([signal, ownDeadline]),
      ...(input === undefined ? {} : { input }),
    });
    if (status.kind === "exited" && status.code === 0) return stdout.toString("utf8");
    throw runtimeFailure(stderr.toString("utf8"), { ...failure, hidden: hiddenDirectories(config) });
  } catch (thrown) {
    if (!ownDeadline.aborted || signal.aborted || thrown instanceof CriError) throw thrown;
    const seconds = deadlineMs / 1000;
    throw new CriError(Code.DeadlineExceeded, `${failure.what}: the runtime did not end within ${seconds} s`, {
      cause: thrown,
    });
  }
}
