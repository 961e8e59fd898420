import { randomBytes } from "node:crypto";
import { Code, CriError, toCriError } from "../cri-api/index.ts";
import type { Call, Logger, MethodDescriptor } from "../cri-api/index.ts";

/** What of a gRPC call this file needs; grpc-js' server calls are such. */
export interface Surface {
  readonly cancelled: boolean;
  getDeadline(): Date | number;
  once(event: "cancelled", listener: () => void): unknown;
  off(event: "cancelled", listener: () => void): unknown;
}

/** What a failed call answers with. */
export interface Status {
  readonly code: Code;
  readonly details: string;
}

/** Every RPC in flight: the one wrapper around each, and how shutdown ends them. */
export interface Calls {
  /**
   * Runs one RPC: names it, joins its abort signals, times it, logs one line. Never rejects: what `work` throws is
   * told as a status.
   */
  run(method: MethodDescriptor, surface: Surface, work: (call: Call) => Promise<void>): Promise<Status>;
  /** Aborts the signals of calls in flight: streams only, which would else never end, or all. */
  abort(which: "streams" | "all", reason: CriError): void;
  /** Resolves when no call is in flight. */
  settled(): Promise<void>;
}

interface InFlight {
  readonly isStream: boolean;
  readonly controller: AbortController;
  readonly done: Promise<Status>;
}

/** setTimeout may fire this much ahead of the clock that the deadline is held against. */
const timerSlackMs = 5;

/** On the clock that nobody sets: the system's may change while the call is under way. */
function deadlineOf(surface: Surface): number {
  return performance.now() + Number(surface.getDeadline()) - Date.now();
}

function whyCancelled(deadlineAtMs: number): CriError {
  return performance.now() + timerSlackMs >= deadlineAtMs
    ? new CriError(Code.DeadlineExceeded, "the caller's deadline passed")
    : new CriError(Code.Canceled, "the caller went away");
}

const codeNames = new Map<number, string>(Object.entries(Code).map(([name, code]) => [code, name]));

/** Whose fault a code names: ours is a warning, the caller's is worth a line, the rest is noise. */
function levelOf(code: Code): "debug" | "info" | "warn" {
  if (code === Code.Ok || code === Code.Unimplemented || code === Code.Canceled) return "debug";
  if (code === Code.Internal || code === Code.Unknown || code === Code.DataLoss) return "warn";
  return "info";
}

function describeFailure(error: CriError): object {
  const cause = error.cause instanceof Error ? error.cause : undefined;
  const needsStack = error.code === Code.Internal || error.code === Code.Unknown;
  return {
    error: error.message,
    ...(cause && cause.message !== error.message ? { cause: cause.message } : {}),
    ...(needsStack ? { stack: (cause ?? error).stack } : {}),
  };
}

export interface CallsParts {
  readonly log: Logger;
  readonly redact: (text: string) => string;
  /** Told of each RPC as it ends. */
  readonly onDone?: ((rpc: string, code: Code, seconds: number) => void) | undefined;
}

export function createCalls(parts: CallsParts): Calls {
  const inFlight = new Set<InFlight>();
  const boot = randomBytes(3).toString("hex");
  let count = 0;

  const settle = async (call: Call, work: (call: Call) => Promise<void>): Promise<Status> => {
    const startedAtMs = performance.now();
    const finish = (code: Code, fields: object): void => {
      const durationMs = Math.round((performance.now() - startedAtMs) * 10) / 10;
      parts.onDone?.(call.rpc, code, durationMs / 1000);
      call.log[levelOf(code)]({ code: codeNames.get(code), durationMs, ...fields }, "rpc done");
    };
    try {
      await work(call);
      finish(Code.Ok, {});
      return { code: Code.Ok, details: "" };
    } catch (thrown) {
      const error = toCriError(thrown);
      finish(error.code, describeFailure(error));
      return { code: error.code, details: parts.redact(error.message) };
    }
  };

  return {
    async run(method, surface, work) {
      count += 1;
      const requestId = `${boot}-${count}`;
      const controller = new AbortController();
      const deadlineAtMs = deadlineOf(surface);
      const onCancelled = (): void => controller.abort(whyCancelled(deadlineAtMs));
      surface.once("cancelled", onCancelled);
      if (surface.cancelled) onCancelled();
      const log = parts.log.child({ requestId, rpc: method.name });
      const call: Call = { requestId, rpc: method.name, signal: controller.signal, log };
      const entry: InFlight = { isStream: method.responseStream, controller, done: settle(call, work) };
      inFlight.add(entry);
      const status = await entry.done;
      inFlight.delete(entry);
      surface.off("cancelled", onCancelled); // grpc-js emits it after success too, when nobody must be aborted
      return status;
    },
    abort(which, reason) {
      for (const entry of inFlight) if (which === "all" || entry.isStream) entry.controller.abort(reason);
    },
    async settled() {
      while (inFlight.size > 0) await Promise.all([...inFlight].map((entry) => entry.done));
    },
  };
}
