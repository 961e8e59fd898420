import { once } from "node:events";
import { mkdtemp, open, readdir, readFile, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { getMachine, type Machine } from "./events.ts";
import { isAlive, openProcess, processIdentity } from "./identity.ts";
import { type Child, reap, spawn } from "./process.ts";
import { run } from "./run.ts";
import { errno, SyscallError } from "./syscall-error.ts";

const { SIGKILL, SIGTERM } = constants.signals;
const signal = new AbortController().signal;
const quiet = ["null", "null", "null"] as const;

function shell(script: string, more: { input?: string; signal?: AbortSignal; maxOutputBytes?: number } = {}) {
  return run({ argv: ["/bin/sh", "-c", script], env: { PATH: "/usr/bin:/bin" }, signal, ...more });
}

async function readText(child: Child, fd: number): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of child.stdio[fd]!) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

describe("spawn", () => {
  test("tells how a child ended", async () => {
    const exited = await spawn({ argv: ["/bin/sh", "-c", "exit 7"], env: {}, stdio: quiet });
    const killed = await spawn({ argv: ["/bin/sleep", "60"], env: {}, stdio: quiet });
    killed.kill(SIGTERM);
    await expect(exited.exited).resolves.toEqual({ kind: "exited", code: 7 });
    await expect(killed.exited).resolves.toEqual({ kind: "signaled", signal: SIGTERM });
  });

  test("gives the child the environment named and nothing else", async () => {
    const result = await run({ argv: ["/usr/bin/env"], env: { A: "1", B: "x=y z" }, signal });
    expect(result.stdout.toString()).toBe("A=1\nB=x=y z\n");
  });

  test("gives the child the descriptors named and no other", async () => {
    const directory = await mkdtemp(join(tmpdir(), "berth-spawn-"));
    const file = await open(join(directory, "out"), "w+");
    const child = await spawn({
      argv: ["/bin/sh", "-c", "ls /proc/self/fd | cat; echo five >&5"],
      env: { PATH: "/bin" },
      stdio: ["null", "pipe-write", "null", "null", "null", { fd: file.fd }],
    });
    // ls has 0 to 5, and 6 for the folder it reads
    await expect(readText(child, 1)).resolves.toBe("0\n1\n2\n3\n4\n5\n6\n");
    await child.exited;
    await expect(readFile(join(directory, "out"), "utf8")).resolves.toBe("five\n");
    await file.close();
    await rm(directory, { recursive: true });
  });

  test("places descriptors whose numbers cross", async () => {
    const directory = await mkdtemp(join(tmpdir(), "berth-spawn-"));
    const files = await Promise.all([0, 1, 2, 3, 4].map((name) => open(join(directory, String(name)), "w+")));
    // Numbers below 10 are the ones that get in each other's way; whichever these are, reverse them.
    const fds = files.map(({ fd }) => ({ fd })).toReversed();
    const child = await spawn({
      argv: ["/bin/sh", "-c", "echo 3 >&3; echo 4 >&4; echo 5 >&5; echo 6 >&6; echo 7 >&7"],
      env: {},
      stdio: [...quiet, ...fds],
    });
    await child.exited;
    const texts = await Promise.all(files.map((_, name) => readFile(join(directory, String(name)), "utf8")));
    expect(texts).toEqual(["7\n", "6\n", "5\n", "4\n", "3\n"]);
    await Promise.all(files.map((file) => file.close()));
    await rm(directory, { recursive: true });
  });

  test("connects both ways over a socket", async () => {
    const child = await spawn({ argv: ["/bin/sh", "-c", "cat <&3 >&3"], env: {}, stdio: [...quiet, "socket"] });
    const socket = child.stdio[3]!;
    socket.end("there and back");
    await expect(readText(child, 3)).resolves.toBe("there and back");
    await child.exited;
  });

  test("hands on default signal dispositions and an empty mask", async () => {
    const { stdout } = await shell("grep -E '^Sig(Blk|Ign)' /proc/self/status");
    expect(stdout.toString()).toBe("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  });

  test("can lead a group or a session", async () => {
    const ids = "cut -d' ' -f1,5,6 /proc/self/stat";
    const group = await spawn({
      argv: ["/bin/sh", "-c", `exec ${ids}`],
      env: { PATH: "/usr/bin:/bin" },
      stdio: ["null", "pipe-write", "null"],
      processGroup: true,
    });
    const session = await spawn({
      argv: ["/bin/sh", "-c", `exec ${ids}`],
      env: { PATH: "/usr/bin:/bin" },
      stdio: ["null", "pipe-write", "null"],
      session: true,
    });
    const [groupPid, groupId] = (await readText(group, 1)).trim().split(" ");
    expect(groupId).toBe(groupPid);
    const [sessionPid, , sessionId] = (await readText(session, 1)).trim().split(" ");
    expect(sessionId).toBe(sessionPid);
    await Promise.all([group.exited, session.exited]);
  });

  test.each([
    ["a missing program", { argv: ["/nonexistent/program"] as const }, "execve", "ENOENT"],
    ["a file that is no program", { argv: ["/etc/passwd"] as const }, "execve", "EACCES"],
    ["a missing directory", { argv: ["/bin/true"] as const, cwd: "/nonexistent" }, "chdir", "ENOENT"],
    ["a relative program", { argv: ["true"] as const }, "execve", "EINVAL"],
    ["a NUL in an argument", { argv: ["/bin/true", "a\0b"] as const }, "job", "EINVAL"],
    ["a NUL in the environment", { argv: ["/bin/true"] as const, env: { A: "\0" } }, "job", "EINVAL"],
    ["too few descriptors", { argv: ["/bin/true"] as const, stdio: ["null"] as const }, "job", "EINVAL"],
    [
      "a closed descriptor",
      { argv: ["/bin/true"] as const, stdio: ["null", "null", { fd: 99_999 }] as const },
      "dup",
      "EBADF",
    ],
  ])("refuses %s", async (_, command, syscall, code) => {
    const refusal = await spawn({ env: {}, stdio: quiet, ...command }).catch((thrown: unknown) => thrown);
    expect(refusal).toBeInstanceOf(SyscallError);
    expect(refusal).toMatchObject({ syscall, code });
  });

  test("tells it also where no thread is to be had for a while", async () => {
    const { addon, job } = getMachine();
    const refusals = [new SyscallError("job", errno.EAGAIN), new SyscallError("job", errno.ENOMEM)];
    const child = addon.eventfd();
    const scarce: Machine["job"] = async () => {
      const refusal = refusals.pop();
      if (refusal) throw refusal;
      return { value: 7, output: Buffer.alloc(0) };
    };
    await expect(reap({ addon, job: scarce }, child)).resolves.toEqual({ kind: "exited", code: 7 });
    const nobody = addon.eventfd();
    await expect(reap({ addon, job }, nobody)).resolves.toEqual({ kind: "exited", code: 255 });
    expect([child, nobody].map((fd) => addon.close(fd))).toEqual([-errno.EBADF, -errno.EBADF]);
  });

  test("leaves no descriptor and no zombie behind", async () => {
    const count = async () => Number((await shell(`ls /proc/${process.pid}/fd | wc -l`)).stdout.toString());
    const before = await count();
    const children = await Promise.all(
      Array.from({ length: 50 }, () =>
        spawn({ argv: ["/bin/true"], env: {}, stdio: ["pipe-read", "pipe-write", "socket"] }),
      ),
    );
    for (let i = 0; i < 20; i++) {
      const none = spawn({ argv: ["/none"], env: {}, stdio: ["pipe-read", "socket", "null"] });
      await expect(none).rejects.toThrow("execve");
    }
    await Promise.all(children.map((child) => child.exited));
    await Promise.all(
      children.flatMap((child) =>
        child.stdio.map(async (stream) => stream!.closed || (await once(stream!.destroy(), "close"))),
      ),
    );
    // Fewer, if an earlier test's sockets were still closing; the loop may need a turn to close the last of ours.
    await expect.poll(count, { timeout: 10_000 }).toBeLessThanOrEqual(before);
    const { stdout } = await shell(`cat /proc/*/stat | awk '$4 == ${process.pid} && $3 == "Z"' | wc -l`);
    expect(stdout.toString().trim()).toBe("0");
  });
});

describe("run", () => {
  test("carries input, output, errors and the status", async () => {
    const result = await shell("cat; echo problem >&2; exit 3", { input: "text" });
    expect(result).toEqual({
      status: { kind: "exited", code: 3 },
      stdout: Buffer.from("text"),
      stderr: Buffer.from("problem\n"),
      truncated: false,
    });
  });

  test("drains output beyond its limit and says so", async () => {
    const result = await shell("head -c 5000000 /dev/zero; echo end >&2", { maxOutputBytes: 1000 });
    expect(result.stdout.length).toBe(1000);
    expect(result.stderr.toString()).toBe("end\n");
    expect(result.truncated).toBe(true);
  });

  test("does not mind a program that leaves its input unread", async () => {
    const result = await shell("exit 0", { input: "x".repeat(1_000_000) });
    expect(result.status).toEqual({ kind: "exited", code: 0 });
  });

  test("loses no output where this thread was too busy to read before the time for it was over", async () => {
    const beBusy = (ms: number): void => {
      for (const end = performance.now() + ms; performance.now() < end; );
    };
    const said = shell("sleep 0.2; echo said");
    const last = await spawn({ argv: ["/bin/sleep", "0.4"], env: {}, stdio: quiet });
    const first = await spawn({ argv: ["/bin/true"], env: {}, stdio: quiet });
    await first.exited; // we are called by the addon now, which has the other ends to tell as soon as we return
    void last.exited.then(() => beBusy(400));
    beBusy(800);
    expect((await said).stdout.toString()).toBe("said\n");
  });

  test("does not wait for a grandchild that keeps its pipes", async () => {
    const result = await shell("sleep 30 & echo $!");
    const grandchild = await processIdentity(Number(result.stdout.toString()));
    expect(isAlive(grandchild!)).toBe(true);
    using handle = openProcess(grandchild!)!;
    handle.signal(SIGKILL);
    await handle.exited;
  });

  test("kills the whole group on abort and rejects with the reason", async () => {
    const abort = new AbortController();
    const child = await spawn({
      argv: ["/bin/sh", "-c", "sleep 60 & echo $!; wait"],
      env: { PATH: "/bin" },
      stdio: ["null", "pipe-write", "null"],
      processGroup: true,
    });
    const [chunk] = (await child.stdio[1]!.take(1).toArray()) as Buffer[];
    const grandchild = openProcess((await processIdentity(Number(chunk!.toString())))!)!;
    child.killGroup(SIGKILL);
    await grandchild.exited;
    await child.exited;

    const running = shell("sleep 60 & wait", { signal: abort.signal });
    abort.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
  });

  test("does not start anything for a signal that is aborted already", async () => {
    await expect(shell("true", { signal: AbortSignal.abort(new Error("late")) })).rejects.toThrow("late");
  });
});

describe("process identity", () => {
  test("holds only as long as the process", async () => {
    const child = await spawn({ argv: ["/bin/sleep", "60"], env: {}, stdio: quiet });
    const identity = (await processIdentity(child.pid))!;
    expect(isAlive(identity)).toBe(true);
    expect(isAlive({ ...identity, startTime: "1" })).toBe(false);
    expect(openProcess({ ...identity, startTime: "1" })).toBeUndefined();
    const handle = openProcess(identity)!;
    handle.signal(SIGKILL);
    await handle.exited;
    await child.exited;
    expect(isAlive(identity)).toBe(false);
    expect(openProcess(identity)).toBeUndefined();
    await expect(processIdentity(child.pid)).resolves.toBeUndefined();
    handle.signal(SIGKILL); // does nothing
  });
  test("is nobody where its number has become a thread's", async () => {
    const threads = (await readdir("/proc/self/task")).map(Number).filter((thread) => thread !== process.pid);
    for (const thread of threads) {
      const identity = await processIdentity(thread);
      if (identity) expect(openProcess(identity)).toBeUndefined();
    }
    expect(threads.length).toBeGreaterThan(0);
  });

  test("reads past a command name with brackets and spaces", async () => {
    const child = await spawn({
      argv: ["/bin/sh", "-c", "printf 'a) R (1 2' > /proc/$$/comm; echo ready; read line"],
      env: {},
      stdio: ["pipe-read", "pipe-write", "null"],
    });
    await child.stdio[1]!.take(1).toArray();
    const identity = await processIdentity(child.pid);
    const { stdout } = await shell(`awk '{ sub(/.*\\)/, "x x"); print $22 }' /proc/${child.pid}/stat`);
    expect(identity?.startTime).toBe(stdout.toString().trim());
    child.stdio[0]!.end("\n");
    await child.exited;
  });

  test("a disposed handle rejects who waits for it", async () => {
    const child = await spawn({ argv: ["/bin/sleep", "60"], env: {}, stdio: quiet });
    const handle = openProcess((await processIdentity(child.pid))!)!;
    handle[Symbol.dispose]();
    await expect(handle.exited).rejects.toThrow("disposed");
    child.kill(SIGKILL);
    await child.exited;
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 40])("there is no process %d", async (pid) => {
    await expect(processIdentity(pid)).resolves.toBeUndefined();
  });
});
