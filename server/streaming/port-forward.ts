import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { toCriError } from "../../cri-api/index.ts";
import type { StreamingBackend } from "./backend.ts";
import type { StreamSession } from "./session.ts";

/** One connection to forward: the client's bytes, and where to say why there are none. */
export interface ForwardedConnection {
  readonly podSandboxId: string;
  readonly port: number;
  readonly data: Duplex;
  readonly error: Duplex;
}

/** Forwards one connection until both sides ended it, or one broke it off. Never rejects. */
export async function forwardConnection(
  session: StreamSession,
  backend: StreamingBackend,
  connection: ForwardedConnection,
): Promise<void> {
  const { podSandboxId, port, data, error } = connection;
  const { log } = session.call;
  error.resume();
  try {
    const target = await backend.portForward(session.call, { podSandboxId, port });
    try {
      await Promise.all([pipeline(data, target), pipeline(target, data)]);
    } catch (thrown) {
      // Either side may hang up at any time. The client would give up all its connections if it were told.
      log.debug({ err: thrown, podSandboxId, port }, "forwarded connection was broken off");
    } finally {
      target.destroy();
    }
  } catch (thrown) {
    log.info({ err: thrown, podSandboxId, port }, "port forward failed");
    const { message } = toCriError(thrown);
    error.write(`error forwarding port ${port} to pod sandbox "${podSandboxId}": ${message}`);
    data.resume();
    data.end();
  } finally {
    error.end();
  }
}
