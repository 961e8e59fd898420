import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { readSpec } from "./bundle.ts";
import { requireRunning } from "./container-streams.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { runtimeOf } from "./runtimes.ts";

/** Per stream; what comes after is read and thrown away (CVE-2022-1708). */
const maxOutputBytes = 16 * 1024 * 1024;
/** setTimeout's own limit; a longer timeout is as good as this one. */
const longestTimerMs = 2_147_483_647;

/**
 * Runs a command in a running container and returns what it wrote.
 *
 * @throws {CriError} `NotFound`, `FailedPrecondition` when the container is not running, `InvalidArgument` without a
 * command, `DeadlineExceeded` after `timeout` seconds (0 = none): the command's processes are gone by then.
 */
export async function execSync(
  call: Call,
  request: cri.ExecSyncRequest,
  host: Host,
): Promise<Init<cri.ExecSyncResponse>> {
  const container = requireRunning(host, request.containerId);
  if (request.cmd.length === 0) throw new CriError(Code.InvalidArgument, "exec without a command");
  if (request.timeout < 0n) throw new CriError(Code.InvalidArgument, `negative exec timeout ${request.timeout}`);
  const { bundle } = containerPathsOf(host.layout, container.id);
  const spec = await readSpec(bundle);
  return await runtimeOf(host, container.runtime).execSync(
    call.signal,
    { id: container.id, bundle, process: { ...spec.process, args: request.cmd, terminal: false } },
    { timeoutMs: Math.min(Number(request.timeout) * 1000, longestTimerMs), maxOutputBytes },
  );
}
