import { run, which } from "../native/index.ts";
import type { Logger } from "../cri-api/index.ts";
import type { Environment } from "./config.ts";

const notifyTimeoutMs = 5000;

/**
 * Tells systemd that we are ready, if it waits for that. Node has no unix datagram sockets, so systemd's own program
 * says it for us. A failure is logged: the unit's start timeout tells the operator the rest.
 *
 * @see https://www.freedesktop.org/software/systemd/man/252/sd_notify.html
 */
export async function notifyReady(environment: Environment, log: Logger): Promise<void> {
  const { notifySocket, path } = environment;
  if (notifySocket === undefined) return;
  const program = await which("systemd-notify", path);
  if (program === undefined) {
    log.warn({}, "systemd waits for us to be ready, but systemd-notify is not there to say so");
    return;
  }
  const { status, stderr } = await run({
    argv: [program, "--ready"],
    env: { NOTIFY_SOCKET: notifySocket, PATH: path },
    signal: AbortSignal.timeout(notifyTimeoutMs),
  });
  if (status.kind === "exited" && status.code === 0) return;
  log.warn({ status, stderr: stderr.toString("utf8").trim() }, "systemd-notify failed");
}
