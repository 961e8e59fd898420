import { randomUUID } from "node:crypto";
import type { Call, Logger } from "../../cri-api/index.ts";

/** One upgraded connection: its call, and the clock that ends it when nothing moves. */
export interface StreamSession extends Disposable {
  /** `signal` is aborted when the client is gone, the session was idle too long, or the daemon stops. */
  readonly call: Call;
  /** Data moved. */
  touch(): void;
  /** Ends the session; the first reason stands. */
  end(reason: Error): void;
}

/** The longest wait a timer of Node can do; beyond it, it would fire at once. */
const maxTimerMs = 0x7fff_ffff;

/** Milliseconds for a timer; 0 stands for no limit. */
export function timerMs(timeoutMs: number): number {
  return timeoutMs === 0 ? maxTimerMs : Math.min(timeoutMs, maxTimerMs);
}

export function createSession(parts: {
  readonly rpc: string;
  readonly log: Logger;
  readonly idleTimeoutMs: number;
  readonly shutdown: AbortSignal;
}): StreamSession {
  const controller = new AbortController();
  const requestId = randomUUID();
  const log = parts.log.child({ requestId, rpc: parts.rpc });
  const signal = AbortSignal.any([controller.signal, parts.shutdown]);

  const idleTimeoutMs = timerMs(parts.idleTimeoutMs);
  let touchedAtMs = performance.now();
  let timer: NodeJS.Timeout;
  const check = (): void => {
    const leftMs = idleTimeoutMs - (performance.now() - touchedAtMs);
    if (leftMs <= 0) controller.abort(new Error("streaming connection was idle for too long"));
    else timer = setTimeout(check, Math.max(1, leftMs));
  };
  timer = setTimeout(check, idleTimeoutMs);

  return {
    call: { requestId, rpc: parts.rpc, signal, log },
    touch() {
      touchedAtMs = performance.now();
    },
    end: (reason) => controller.abort(reason),
    [Symbol.dispose]() {
      clearTimeout(timer);
    },
  };
}
