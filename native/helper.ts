import { constants } from "node:os";
import type { Socket } from "node:net";
import { helperPath } from "./binding.ts";
import { createSemaphore, type Semaphore } from "./locks.ts";
import { type Child, spawn } from "./process.ts";
import { errno, SyscallError } from "./syscall-error.ts";

/** How long a helper may take when its caller sets no earlier end. */
const usualDeadlineMs = 30_000;
const maxAnswerBytes = 16 * 1024 * 1024;

/* A helper that waits on a dead file server cannot even be killed; the caps keep such ones from piling up. Each kind has
 * a cap of its own, so that stuck volumes of new pods do not keep old pods from being taken down. That of `resolve` is
 * wide, since every container has to pass. */
const caps: Readonly<Record<"resolve" | "tail" | "relabel" | "umount" | "namespace", Semaphore>> = {
  resolve: createSemaphore(64),
  tail: createSemaphore(16),
  relabel: createSemaphore(16),
  umount: createSemaphore(16),
  namespace: createSemaphore(16),
};

/** A helper that has not ended in its time. */
export class HelperTimeout extends Error {
  override readonly name = "TimeoutError";
  /** What it had said by then. */
  readonly answer: Buffer;

  constructor(command: string, afterMs: number, answer: Buffer) {
    super(`berth-helper ${command} has not ended within ${afterMs / 1000} s`);
    this.answer = answer;
  }
}

function readAnswer(stdout: Socket, chunks: Buffer[]): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  let size = 0;
  stdout.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size <= maxAnswerBytes) chunks.push(chunk);
    else stdout.destroy();
  });
  stdout.on("error", () => stdout.destroy());
  stdout.on("close", () => resolve(Buffer.concat(chunks)));
  return promise;
}

function splitFields(answer: Buffer): string[] {
  return answer.toString("utf8").split("\0").slice(0, -1);
}

async function awaitAnswer(child: Child, subject: string, chunks: Buffer[]): Promise<Buffer> {
  const [stdin, stdout] = child.stdio;
  stdin?.on("error", () => stdin.destroy());
  const answer = stdout ? readAnswer(stdout, chunks) : Promise.resolve(Buffer.alloc(0));
  const [status, bytes] = await Promise.all([child.exited, answer]);
  if (status.kind === "exited" && status.code === 0) return bytes;
  const [error, step, told] = splitFields(bytes);
  throw new SyscallError(step ?? "berth-helper", Number(error ?? errno.EIO), told || subject);
}

/** Rejects as soon as the signal aborts, whether or not the killed helper can die. */
function abandonOn(
  signal: AbortSignal,
  child: Child,
): { readonly aborted: Promise<never>; readonly forget: () => void } {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    child.kill(constants.signals.SIGKILL);
    reject(signal.reason as Error);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  return { aborted: promise, forget: () => signal.removeEventListener("abort", onAbort) };
}

/**
 * Runs one sub-command of the helper, under the cap of its kind and a deadline.
 * @throws {SyscallError} what the helper reports, with `subject` as its path
 * @throws `signal.reason`; {HelperTimeout} after `deadlineMs` (30 s without one); a TimeoutError where all of its kind
 * were stuck until then
 */
export async function runHelper(
  kind: keyof typeof caps,
  args: readonly string[],
  request: {
    readonly input: Uint8Array;
    readonly subject: string;
    readonly signal: AbortSignal;
    readonly deadlineMs?: number;
  },
): Promise<Buffer> {
  const deadlineMs = request.deadlineMs ?? usualDeadlineMs;
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(deadlineMs)]);
  const giveBack = await caps[kind].acquire(signal);
  let child: Child;
  try {
    child = await spawn({
      argv: [helperPath, ...args],
      env: {},
      cwd: "/",
      stdio: ["pipe-read", "pipe-write", "null"],
    });
  } catch (thrown) {
    giveBack();
    throw thrown;
  }
  void child.exited.then(giveBack); // not at the abort: the cap counts processes, not callers
  const { aborted, forget } = abandonOn(signal, child);
  const chunks: Buffer[] = [];
  try {
    const answer = awaitAnswer(child, request.subject, chunks);
    child.stdio[0]?.end(request.input);
    return await Promise.race([answer, aborted]);
  } catch (thrown) {
    if (thrown !== signal.reason || request.signal.aborted) throw thrown;
    throw new HelperTimeout(args[0] ?? "", deadlineMs, Buffer.concat(chunks));
  } finally {
    forget();
    for (const stream of child.stdio) stream?.destroy();
  }
}

/** The NUL-ended fields of a helper's answer. */
export function answerFields(answer: Buffer): readonly string[] {
  return splitFields(answer);
}
