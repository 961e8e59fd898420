import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { run, type RunResult } from "./run.ts";

const here = import.meta.dirname;
const signal = new AbortController().signal;
const path = "/usr/sbin:/usr/bin:/sbin:/bin";

async function runText(argv: readonly [string, ...string[]]): Promise<string> {
  const { stdout, status } = await run({ argv, env: { PATH: path }, signal });
  expect(status).toEqual({ kind: "exited", code: 0 });
  return stdout.toString().trim();
}

/** In namespaces of its own: what a wild call kills, mounts or configures is gone with it. */
async function fuzz(addon: string, seed: number, calls: number, env: Record<string, string>): Promise<RunResult> {
  const directory = await mkdtemp(join(tmpdir(), "berth-fuzz-"));
  const isolation = ["/usr/bin/unshare", "--fork", "--pid", "--mount-proc", "--net", "--ipc", "--uts", "--kill-child"];
  try {
    return await run({
      argv: [
        "/usr/bin/env",
        "-C",
        directory,
        ...isolation,
        "/usr/bin/env",
        ...Object.entries(env).map((pair) => pair.join("=")),
      ].concat([process.execPath, join(here, "boundary-fuzz.ts"), addon, String(seed), String(calls)]) as [string],
      env: { PATH: path },
      signal: AbortSignal.timeout(60_000),
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function expectSound(result: RunResult): void {
  expect(result.stderr.toString()).toBe("");
  expect(result.status).toEqual({ kind: "exited", code: 0 });
  const summary: unknown = JSON.parse(result.stdout.toString());
  expect(summary).toEqual({ accepted: expect.any(Number), lostJobs: 0 });
  // Calls that get through are the ones that reach the C code behind the checks.
  expect(summary).toHaveProperty(
    "accepted",
    expect.toSatisfy((count: number) => count > 500),
  );
}

test.each([1, 2, 3])("no JavaScript value crashes the addon (seed %d)", async (seed) => {
  expectSound(await fuzz(join(here, "build/berth.node"), seed, 20_000, {}));
});

test("nor does it touch memory that is not its own, as the sanitizers see it", { timeout: 120_000 }, async () => {
  await runText(["/bin/sh", join(here, "build.sh"), "--sanitize"]);
  const libasan = await runText(["/usr/bin/gcc", "-print-file-name=libasan.so"]);
  const environment = {
    LD_PRELOAD: await runText(["/usr/bin/realpath", libasan]),
    ASAN_OPTIONS: "detect_leaks=0:abort_on_error=1",
    UBSAN_OPTIONS: "halt_on_error=1:print_stacktrace=1",
  };
  expectSound(await fuzz(join(here, "build/sanitized/berth.node"), 4, 10_000, environment));
});

test("the helper is sound on any input, as the sanitizers see it", { timeout: 120_000 }, async () => {
  await runText(["/bin/sh", join(here, "build.sh"), "--sanitize"]);
  const helper = join(here, "build/sanitized/berth-helper");
  const inputs = [
    "",
    "\0",
    "\0\0\0",
    "c",
    "-/etc/mtab\0-/nonexistent\0",
    "c/etc/passwd/x\0",
    "f",
    "fx\0f/\0f/etc/passwd\0f/etc/passwd/x\0ux\0u\0u/proc/1/x\0",
    `f/${"a".repeat(5000)}\0`,
    "-/proc/self/fd/0",
    `-/${"a".repeat(5000)}\0`,
    `-/${"a/".repeat(2040)}\0`,
    "-/etc\0".repeat(5000),
    "x".repeat(1_100_000),
  ];
  for (const input of inputs) {
    const result = await run({ argv: [helper, "resolve"], env: {}, input, signal });
    expect(result.stderr.toString()).toBe("");
    expect(result.status).toEqual({ kind: "exited", code: input.length > 1_000_000 ? 1 : 0 });
  }
  const cut = await run({ argv: [helper, "resolve"], env: {}, input: "-/\0-/nonexistent", signal });
  expect(cut.stdout.toString().split("\0")).toHaveLength(9); // the eight fields of one answer
  const long = "a".repeat(100_000);
  const calls = [
    ["umount"],
    ["umount", ""],
    ["umount", long],
    ["pause", "x"],
    ["user-namespace", "", "", ""],
    ["user-namespace", long, long, long],
    ["pin", long, long, "123456789012345678901234567890", long],
    ["pin", "/proc/self/ns/user", "/", "0", "", long, long],
    ["tail", long, long],
    ["tail", "/proc/self/cmdline", "x"],
    ["tail", "/etc/passwd", "-1"],
    ["tail", "/bin/true", "18446744073709551616"],
    ["relabel", long],
    ["relabel", long, "/proc/uptime", long],
    ["relay"],
    ["relay", long],
    ["follow", long, long],
    ["follow", "/proc/self/cmdline", "/bin/true", long],
    ["nothing"],
    [],
  ];
  for (const args of calls) {
    const result = await run({ argv: [helper, ...args], env: {}, signal });
    expect(result.stderr.toString()).not.toMatch(/Sanitizer|runtime error/);
    expect(result.status.kind).toBe("exited");
  }
});

test("the helper pins namespaces soundly, as the sanitizers see it", { timeout: 120_000 }, async () => {
  await runText(["/bin/sh", join(here, "build.sh"), "--sanitize"]);
  const helper = join(here, "build/sanitized/berth-helper");
  const directory = await mkdtemp(join(tmpdir(), "berth-helper-"));
  const user = join(directory, "user");
  const net = String(0x4000_0000);
  const sysctl = `/proc/sys/${"x".repeat(2000)}`;
  const act = async (...args: readonly string[]) => await run({ argv: [helper, ...args], env: {}, signal });
  const made = await act("user-namespace", user, "0 100000 1000\n", "0 100000 1000\n");
  const pinned = await act("pin", user, directory, net, "");
  const again = await act("pin", user, directory, net, "");
  const refused = await act("pin", user, directory, net, "", sysctl, "1");
  for (const name of ["net", "user"]) await act("umount", join(directory, name));
  await rm(directory, { recursive: true });
  const codes = [made, pinned, again, refused].map(({ status }) => status);
  expect(codes).toEqual([0, 0, 1, 1].map((code) => ({ kind: "exited", code })));
  expect([made, pinned, again, refused].map(({ stderr }) => stderr.toString())).toEqual(["", "", "", ""]);
  expect(again.stdout.toString()).toBe("17\0mount\0\0");
});
