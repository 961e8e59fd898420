import { connect } from "node:http2";
import type { IncomingHttpHeaders } from "node:http2";
import { createConnection } from "node:net";
import { setTimeout } from "node:timers/promises";
import type { Logger } from "../cri-api/index.ts";
import type { Notify } from "./notify.ts";

/** A gRPC message without fields: not compressed, no bytes. */
const emptyMessage = Buffer.alloc(5);
const statusPath = "/runtime.v1.RuntimeService/Status";

/**
 * Calls Status over the socket as kubelet does, on a connection of its own: it answers only while the listener, the
 * event loop and the rooms do.
 *
 * @throws {Error} what stood in the way, `signal.reason` included.
 */
export async function callStatus(socket: string, signal: AbortSignal): Promise<void> {
  const session = connect("http://localhost", { createConnection: () => createConnection({ path: socket }) });
  try {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingHttpHeaders>();
    const takeStatus = (headers: IncomingHttpHeaders): void => {
      if (headers["grpc-status"] !== undefined) resolve(headers); // in the trailers, or in the only headers of a failure
    };
    const request = session
      .once("error", reject)
      .request(
        { ":method": "POST", ":path": statusPath, "content-type": "application/grpc", te: "trailers" },
        { signal },
      )
      .on("response", takeStatus)
      .on("trailers", takeStatus)
      .once("error", (error) => reject(signal.aborted ? signal.reason : error))
      .once("close", () => reject(new Error("the call ended without a status")));
    request.end(emptyMessage);
    request.resume();
    const { "grpc-status": status, "grpc-message": message } = await promise;
    if (status !== "0") throw new Error(`Status answered with code ${String(status)}: ${String(message)}`);
  } finally {
    session.destroy();
  }
}

export interface WatchdogParts {
  readonly socket: string;
  /** systemd restarts us when it hears nothing for so long. */
  readonly timeoutMs: number;
  readonly notify: Notify;
  readonly log: Logger;
}

/** Tells systemd, twice in each timeout, that calls are answered, as long as they are. */
export function startWatchdog({ socket, timeoutMs, notify, log }: WatchdogParts): AsyncDisposable {
  const stop = new AbortController();
  const periodMs = timeoutMs / 2;
  async function ping(): Promise<void> {
    try {
      await callStatus(socket, AbortSignal.any([stop.signal, AbortSignal.timeout(periodMs)]));
      notify("WATCHDOG=1");
    } catch (thrown) {
      if (!stop.signal.aborted)
        log.error({ err: thrown }, "our own call was not answered, systemd is not told we live");
    }
  }
  async function loop(): Promise<void> {
    while (!stop.signal.aborted) {
      await ping();
      await setTimeout(periodMs, undefined, { signal: stop.signal }).catch(() => undefined);
    }
  }
  const ended = loop();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await ended;
    },
  };
}
