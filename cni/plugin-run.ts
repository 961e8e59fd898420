import { Code, CriError, errnoOf, type Logger, toCriError } from "../cri-api/index.ts";
import * as v from "valibot";
import { isJsonObject, type JsonObject } from "./json.ts";
import { toOneLine } from "./text.ts";

export type CniCommand = "ADD" | "DEL" | "CHECK" | "GC" | "STATUS" | "VERSION";

/** What this room needs of native's `run`. */
export type RunProcess = (command: {
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly maxOutputBytes?: number;
  readonly signal: AbortSignal;
}) => Promise<{
  readonly status:
    | { readonly kind: "exited"; readonly code: number }
    | { readonly kind: "signaled"; readonly signal: number };
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly truncated: boolean;
}>;

export interface PluginParts {
  readonly run: RunProcess;
  /** Resolves after that many milliseconds, rejects with the signal's reason. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<unknown>;
  readonly log: Logger;
}

export interface PluginInvocation {
  readonly command: CniCommand;
  readonly type: string;
  /** The binary's file. */
  readonly path: string;
  /** `CNI_*`. */
  readonly environment: Readonly<Record<string, string>>;
  readonly config: JsonObject;
  readonly signal: AbortSignal;
}

/** A plugin that says no is an expected outcome; `cniCode` is absent where it did not say it in the spec's form. */
export type PluginOutcome =
  | { readonly kind: "succeeded"; readonly stdout: Buffer }
  | { readonly kind: "failed"; readonly cniCode: number | undefined; readonly words: string };

// Plugins call ip, iptables and the like; nothing else of our environment is their business.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const maxOutputBytes = 1024 * 1024;
const busyRetries = 20;
const busyPauseMs = 250;

const errorSchema = v.looseObject({
  code: v.pipe(v.number(), v.integer(), v.minValue(1)),
  msg: v.optional(v.string(), ""),
  details: v.optional(v.string(), ""),
});

/**
 * Runs one plugin to its end.
 *
 * @throws {CriError} `Canceled` or `DeadlineExceeded` if the signal ended it (its process group is killed),
 *   `FailedPrecondition` if its binary cannot be started.
 */
export async function runPlugin(parts: PluginParts, invocation: PluginInvocation): Promise<PluginOutcome> {
  const startedAt = performance.now();
  const result = await startWithRetries(parts, invocation);
  const durationMs = Math.round(performance.now() - startedAt);
  parts.log.debug(
    { plugin: invocation.type, command: invocation.command, durationMs, status: result.status },
    "cni plugin ran",
  );
  if (result.status.kind === "exited" && result.status.code === 0) {
    if (!result.truncated || result.stdout.length < maxOutputBytes) return { kind: "succeeded", stdout: result.stdout };
    return { kind: "failed", cniCode: undefined, words: `wrote more than ${String(maxOutputBytes)} bytes` };
  }
  return describeFailure(result);
}

async function startWithRetries(parts: PluginParts, invocation: PluginInvocation): ReturnType<RunProcess> {
  for (let retriesLeft = busyRetries; ; retriesLeft -= 1) {
    try {
      return await start(parts.run, invocation);
    } catch (thrown) {
      // An installer that is still writing the binary: both peers wait for it.
      const isBusy = errnoOf(thrown) === "ETXTBSY" && retriesLeft > 0;
      if (!isBusy) throw explainStart(thrown, invocation);
      await parts.wait(busyPauseMs, invocation.signal).catch((reason: unknown) => {
        throw explainStart(reason, invocation);
      });
    }
  }
}

function start(run: RunProcess, invocation: PluginInvocation): ReturnType<RunProcess> {
  invocation.signal.throwIfAborted();
  return run({
    argv: [invocation.path],
    env: { PATH: searchPath, CNI_COMMAND: invocation.command, ...invocation.environment },
    input: JSON.stringify(invocation.config),
    maxOutputBytes,
    signal: invocation.signal,
  });
}

function explainStart(thrown: unknown, { command, type, signal }: PluginInvocation): CriError {
  const plugin = `cni plugin ${JSON.stringify(type)}`;
  if (signal.aborted) {
    const { code } = toCriError(signal.reason);
    const why = code === Code.DeadlineExceeded ? "did not finish in time" : "was stopped with its call";
    return new CriError(code, `${plugin} ${why} during ${command}`, { cause: thrown });
  }
  const reason = thrown instanceof Error ? toOneLine(thrown.message) : "unknown reason";
  const { code } = toCriError(thrown); // of the machine, where something is scarce; else the plugin is at fault
  const isScarce = code === Code.ResourceExhausted;
  return new CriError(isScarce ? code : Code.FailedPrecondition, `${plugin} could not be started: ${reason}`, {
    cause: thrown,
  });
}

function describeFailure(result: Awaited<ReturnType<RunProcess>>): PluginOutcome {
  const said = parseError(result.stdout);
  if (said !== undefined) return { kind: "failed", ...said };
  const end =
    result.status.kind === "exited"
      ? `exited with code ${String(result.status.code)}`
      : `was killed by signal ${String(result.status.signal)}`;
  // Not the spec's error object: what it printed is the best there is. The end of stderr tells more than its start.
  const tail =
    toOneLine(result.stderr.subarray(-2048).toString()) || toOneLine(result.stdout.subarray(0, 2048).toString());
  return { kind: "failed", cniCode: undefined, words: tail === "" ? `${end} and said nothing` : `${end}: ${tail}` };
}

function parseError(stdout: Buffer): { cniCode: number; words: string } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(stdout.toString());
  } catch {
    return undefined;
  }
  const parsed = isJsonObject(value) ? v.safeParse(errorSchema, value) : undefined;
  if (!parsed?.success) return undefined;
  const { code, msg, details } = parsed.output;
  const words = toOneLine([msg, details].filter((part) => part !== "").join("; "));
  return { cniCode: code, words: words === "" ? `error ${String(code)} without a message` : words };
}
