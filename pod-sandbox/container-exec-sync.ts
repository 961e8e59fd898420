import type { Call, cri, Init } from "../cri-api/index.ts";
import { Code, CriError } from "../cri-api/index.ts";
import { requireExecutable } from "./container-streams.ts";
import { execCommandOf } from "./exec-command.ts";
import type { Host } from "./host.ts";
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
  const container = requireExecutable(host, request.containerId);
  if (request.cmd.length === 0) throw new CriError(Code.InvalidArgument, "exec without a command");
  if (request.timeout < 0n) throw new CriError(Code.InvalidArgument, `negative exec timeout ${request.timeout}`);
  const command = await execCommandOf(container, { args: request.cmd, terminal: false }, host);
  return await runtimeOf(host, container.runtime).execSync(call.signal, command, {
    timeoutMs: Math.min(Number(request.timeout) * 1000, longestTimerMs),
    maxOutputBytes,
  });
}
