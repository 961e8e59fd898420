import type { Call, Logger } from "../cri-api/index.ts";

/** A logger that says nothing. */
export const silentLog: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLog,
};

/** A call that nobody has given up, unless `signal` says so. */
export function testCall(signal: AbortSignal = new AbortController().signal): Call {
  return { requestId: "test", rpc: "Test", signal, log: silentLog };
}
