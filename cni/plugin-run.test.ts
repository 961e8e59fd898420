import { describe, expect, it } from "vitest";
import { type PluginInvocation, type RunProcess, runPlugin } from "./plugin-run.ts";
import { createTestLog } from "./testing.ts";

type Ended = Partial<Omit<Awaited<ReturnType<RunProcess>>, "stdout" | "stderr">> & { stdout?: string; stderr?: string };
const ended = ({ stdout = "", stderr = "", ...rest }: Ended): Awaited<ReturnType<RunProcess>> => ({
  status: { kind: "exited", code: 0 },
  truncated: false,
  ...rest,
  stdout: Buffer.from(stdout),
  stderr: Buffer.from(stderr),
});
const failing = (stdout: string, stderr = ""): Ended => ({ status: { kind: "exited", code: 1 }, stdout, stderr });
const invocation = (signal = new AbortController().signal): PluginInvocation => ({
  command: "ADD",
  type: "bridge",
  path: "/usr/lib/cni/bridge",
  environment: { CNI_IFNAME: "eth0" },
  config: { name: "net" },
  signal,
});
function runWith(run: RunProcess, signal?: AbortSignal): ReturnType<typeof runPlugin> {
  const wait = (_: number, of: AbortSignal): Promise<void> =>
    of.aborted ? Promise.reject(of.reason as Error) : Promise.resolve();
  return runPlugin({ run, wait, log: createTestLog() }, invocation(signal));
}
const errno = (code: string): Error => Object.assign(new Error(`spawn: it went wrong (${code})`), { code });

describe("a plugin", () => {
  it("gets its configuration on stdin and nothing of our environment", async () => {
    let seen: Parameters<RunProcess>[0] | undefined;
    await runWith((command) => {
      seen = command;
      return Promise.resolve(ended({ stdout: "{}" }));
    });
    expect(seen?.argv).toEqual(["/usr/lib/cni/bridge"]);
    expect(seen?.input).toBe('{"name":"net"}');
    expect(Object.keys(seen?.env ?? {}).sort()).toEqual(["CNI_COMMAND", "CNI_IFNAME", "PATH"]);
  });

  it.each([
    [
      "the spec's error",
      failing('{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"10.0.0.0/33"}'),
      7,
      "bad subnet; 10.0.0.0/33",
    ],
    ["an error without words", failing('{"code":11}'), 11, "error 11 without a message"],
    ["control characters", failing('{"code":100,"msg":"a\\n\\u001b[31mb"}'), 100, "a [31mb"],
    ["garbage", failing("\u0000\u0001garbage"), undefined, "exited with code 1: garbage"],
    ["JSON that is no error", failing('{"msg":"no code"}', "on stderr"), undefined, "exited with code 1: on stderr"],
    ["words on stderr", failing("", "panic: nil map\n"), undefined, "exited with code 1: panic: nil map"],
    ["silence", failing(""), undefined, "exited with code 1 and said nothing"],
    [
      "a crash",
      { status: { kind: "signaled", signal: 11 } } as const,
      undefined,
      "was killed by signal 11 and said nothing",
    ],
    ["a flood", { stdout: "x".repeat(1024 * 1024), truncated: true }, undefined, "wrote more than 1048576 bytes"],
  ])("that ends with %s is a failure in plain words", async (_, result, cniCode, words) => {
    expect(await runWith(() => Promise.resolve(ended(result)))).toEqual({ kind: "failed", cniCode, words });
  });

  it("may say no more than a kilobyte", async () => {
    const outcome = await runWith(() =>
      Promise.resolve(ended(failing(JSON.stringify({ code: 7, msg: "x".repeat(100_000) })))),
    );
    expect(outcome).toMatchObject({ kind: "failed", words: `${"x".repeat(1024)}…` });
  });

  it("that floods stderr only has succeeded", async () => {
    expect(await runWith(() => Promise.resolve(ended({ stdout: "{}", truncated: true })))).toMatchObject({
      kind: "succeeded",
    });
  });

  it("whose binary is being written is tried again", async () => {
    let attempts = 0;
    const outcome = await runWith(() => {
      attempts += 1;
      return attempts < 4 ? Promise.reject(errno("ETXTBSY")) : Promise.resolve(ended({ stdout: "{}" }));
    });
    expect(outcome.kind).toBe("succeeded");
    expect(attempts).toBe(4);
  });

  it("whose binary is written for ever is given up", async () => {
    await expect(runWith(() => Promise.reject(errno("ETXTBSY")))).rejects.toMatchObject({ code: 9 });
  });

  it("that cannot be started is a precondition that failed", async () => {
    await expect(runWith(() => Promise.reject(errno("EACCES")))).rejects.toMatchObject({
      code: 9,
      message: 'cni plugin "bridge" could not be started: spawn: it went wrong (EACCES)',
    });
  });

  it.each([
    [new DOMException("late", "TimeoutError"), 4, 'cni plugin "bridge" did not finish in time during ADD'],
    [new DOMException("gone", "AbortError"), 1, 'cni plugin "bridge" was stopped with its call during ADD'],
  ])("that the signal ended is told by the signal's reason: %s", async (reason, code, message) => {
    const controller = new AbortController();
    const attempt = runWith(() => {
      controller.abort(reason);
      return Promise.reject(reason);
    }, controller.signal);
    await expect(attempt).rejects.toMatchObject({ code, message });
  });

  it("is not started for a call that has ended", async () => {
    let attempts = 0;
    const attempt = runWith(() => {
      attempts += 1;
      return Promise.resolve(ended({}));
    }, AbortSignal.abort());
    await expect(attempt).rejects.toMatchObject({ code: 1 });
    expect(attempts).toBe(0);
  });
});
