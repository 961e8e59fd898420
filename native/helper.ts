import { constants } from "node:os";
import type { Socket } from "node:net";
import { helperPath } from "./binding.ts";
import { createSemaphore, type Semaphore } from "./locks.ts";
import { type Child, spawn } from "./process.ts";
import { errno, SyscallError } from "./syscall-error.ts";

/** How long a helper may take when its caller sets no earlier end. */
const usualDeadlineMs = 30_000;
const maxAnswerBytes = 16 * 1024 * 1024;

/* A helper that waits on a dead file server cannot even be killed; the caps keep such ones from piling up. Unmounting
 * has a cap of its own, so that stuck volumes of new pods do not keep old pods from being taken down. */
const caps: Readonly<Record<"resolve" | "relabel" | "umount" | "namespace", Semaphore>> = {
  resolve: createSemaphore(16),
  relabel: createSemaphore(16),
  umount: createSemaphore(16),
  namespace: createSemaphore(16),
};

function readAnswer(stdout: Socket): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
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

async function awaitAnswer(child: Child, subject: string): Promise<Buffer> {
  const [stdin, stdout] = child.stdio;
  stdin?.on("error", () => stdin.destroy());
  const answer = stdout ? readAnswer(stdout) : Promise.resolve(Buffer.alloc(0));
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
 * @throws `signal.reason`, or a TimeoutError after `deadlineMs` (30 s without one)
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
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(request.deadlineMs ?? usualDeadlineMs)]);
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
  try {
    const answer = awaitAnswer(child, request.subject);
    child.stdio[0]?.end(request.input);
    return await Promise.race([answer, aborted]);
  } finally {
    forget();
    for (const stream of child.stdio) stream?.destroy();
  }
}

/** The NUL-ended fields of a helper's answer. */
export function answerFields(answer: Buffer): readonly string[] {
  return splitFields(answer);
}
