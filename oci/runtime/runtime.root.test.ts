import { access, mkdir, open, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Code } from "../../cri-api/index.ts";
import { isAlive, openProcess, spawn } from "../../native/index.ts";
import { readCgroupMounts, readCgroupPaths } from "./cgroup-paths.ts";
import { readContainerStats } from "./cgroup-stats.ts";
import { gateOf } from "./container-start.ts";
import { readStat } from "./process-tree.ts";
import { openBench } from "./testing.ts";
import type { Bench } from "./testing.ts";
import type { ExecLimits } from "./types.ts";

const soon = (): AbortSignal => AbortSignal.timeout(25_000);
const mebibyte = 1024 * 1024;
const limits: ExecLimits = { timeoutMs: 0, maxOutputBytes: 16 * mebibyte };

/** Looks again until it is so; the test's own timeout ends it. */
async function until<T>(look: () => Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Command lines on the whole machine that hold the text. */
async function processesWith(text: string): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.map((line) => line.replaceAll("\0", " ")).filter((line) => line.includes(text));
}

for (const program of ["crun", "runc"] as const) {
  describe(program, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = await openBench(program);
    });
    afterAll(async () => {
      expect(await bench.leftovers()).toEqual([]);
      await bench[Symbol.asyncDispose]();
      expect(await processesWith(bench.directory)).toEqual([]);
    });

    async function create(
      args: readonly string[],
      wish: Parameters<Bench["prepareSpec"]>[1] & { stdin?: boolean; stdinOnce?: boolean } = {},
    ) {
      const { stdin = false, stdinOnce = false, ...others } = wish;
      const container = { ...(await bench.prepareSpec(args, others)), stdin, stdinOnce };
      const { id, bundle } = container;
      onTestFinished(async () => await bench.runtime.delete(soon(), id, bundle));
      const processes = await bench.runtime.create(soon(), container);
      return {
        ...container,
        ...processes,
        exit: () => bench.runtime.waitForExit(id, processes.init, processes.monitor, soon()),
        exec: (command: readonly string[], others: Partial<ExecLimits> = {}, signal = soon()) =>
          bench.runtime.execSync(
            signal,
            { id, bundle, process: { ...container.spec.process, terminal: false, args: command } },
            { ...limits, ...others },
          ),
      };
    }

    async function start(...given: Parameters<typeof create>) {
      const container = await create(...given);
      await bench.runtime.start(soon(), container.id);
      return container;
    }

    test("tells what the runtime can do", () => {
      expect(bench.runtime.version).toMatch(/^\d+\.\d+/);
      expect(bench.runtime.features).toEqual({
        recursiveReadOnlyMounts: true,
        userNamespaces: expect.any(Boolean),
        networkDevices: expect.any(Boolean),
      });
    });

    test("the monitor is nobody's child, has a session and nothing of our environment", async () => {
      const { monitor, bundle } = await create(["sleep", "1000"]);
      const pid = monitor?.pid ?? 0;
      const seen = await readStat(pid);
      expect(seen?.session).toBe(pid);
      expect(seen?.ppid).not.toBe(process.pid);
      const names = (await readFile(`/proc/${pid}/environ`, "utf8")).split("\0").map((entry) => entry.split("=")[0]);
      expect(new Set(names.filter(Boolean))).toEqual(new Set(["PATH", "_OCI_STARTPIPE", "_OCI_SYNCPIPE"]));
      expect((await stat(join(bundle, "config.json"))).mode & 0o777).toBe(0o600);
    });

    test("output lands in the log in the CRI format", async () => {
      const { logPath, exit } = await start(["sh", "-c", "echo out; echo err >&2; exit 4"]);
      expect((await exit()).exitCode).toBe(4);
      const lines = (await readFile(logPath, "utf8")).trimEnd().split("\n").sort();
      expect(lines.map((line) => line.split(" ").slice(1).join(" ")).sort()).toEqual(["stderr F err", "stdout F out"]);
      expect(lines[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) /);
    });

    test("a renamed log is followed by a new one and loses nothing; one that was not renamed stays", async () => {
      const { logPath, bundle } = await start(["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"]);
      await until(async () => (await readFile(logPath, "utf8")).includes(" 1\n"));
      await bench.runtime.reopenLog(soon(), bundle, logPath);
      expect(await readFile(logPath, "utf8")).toContain(" 0\n");
      await rename(logPath, `${logPath}.1`);
      await bench.runtime.reopenLog(soon(), bundle, logPath);
      await until(async () => (await readFile(logPath, "utf8")).includes("\n"));
      const text = (await readFile(`${logPath}.1`, "utf8")) + (await readFile(logPath, "utf8"));
      const numbers = text
        .trimEnd()
        .split("\n")
        .map((line) => Number(line.split(" ").at(-1)));
      expect(numbers).toEqual(numbers.map((_, index) => index));
    });

    test("without a monitor no log file is made, the container runs on, and its exit code is 255", async () => {
      const { id, init, monitor, bundle, logPath, exec, exit } = await start(["sleep", "1000"]);
      await using process = openProcess(monitor ?? { pid: 0, startTime: "" });
      process?.signal(9);
      await process?.exited;
      await rename(logPath, `${logPath}.1`);
      await expect(bench.runtime.reopenLog(soon(), bundle, logPath)).rejects.toMatchObject({
        code: Code.FailedPrecondition,
      });
      await expect(stat(logPath)).rejects.toMatchObject({ code: "ENOENT" });
      await expect(bench.runtime.resize(bundle, { width: 80, height: 25 })).rejects.toMatchObject({
        code: Code.FailedPrecondition,
      });
      const handlers = { message: () => undefined, closed: () => undefined };
      await expect(bench.runtime.attach(bundle, handlers)).rejects.toMatchObject({ code: Code.FailedPrecondition });
      expect((await exec(["true"])).exitCode).toBe(0);
      await bench.runtime.kill(id, init, 9);
      expect(await exit()).toMatchObject({ exitCode: 255, oomKilled: false });
    });

    test("a daemon that starts later finds containers, and exits that it missed", async () => {
      const living = await start(["sleep", "1000"]);
      const ended = await start(["sh", "-c", "exit 5"]);
      await ended.exit();
      const later = await bench.reopen();
      expect(isAlive(living.init)).toBe(true);
      expect(await later.isStarted(living.id)).toBe(true);
      expect(await later.cgroupPaths(living.id)).toEqual(await readCgroupPaths(living.init.pid));
      const process = { ...living.spec.process, args: ["echo", "still", "here"] };
      const said = await later.execSync(soon(), { id: living.id, bundle: living.bundle, process }, limits);
      expect(said.stdout.toString()).toBe("still here\n");
      expect((await later.waitForExit(ended.id, ended.init, ended.monitor, soon())).exitCode).toBe(5);
    });

    test("commands that a daemon has left running are ended by the next one, wherever they went", async () => {
      const mark = `${70_000_000 + process.pid}`;
      const { exec, init } = await start(["sleep", "1000"]);
      const left = exec(["sh", "-c", `(sleep ${mark} &); setsid sleep ${mark} & sleep ${mark}`]);
      await until(async () => (await processesWith(`sleep ${mark}`)).length >= 3);
      await bench.reopen();
      expect(await processesWith(mark)).toEqual([]);
      expect((await left).exitCode).toBe(137);
      expect(isAlive(init)).toBe(true);
      expect((await bench.leftovers()).filter((path) => path.includes("/execs/"))).toEqual([]);
    });

    test("a start that the daemon did not live to write down is found to be done", async () => {
      const container = await create(["sleep", "1000"]);
      const { id, bundle } = container;
      const gate = gateOf(bench, id);
      await using file = await open(gate, program === "crun" ? "w" : "r");
      await (program === "crun" ? file.write("\0") : file.read(Buffer.alloc(1), 0, 1));
      const later = await bench.reopen();
      await until(() => later.isStarted(id));
      await expect(access(gate)).rejects.toMatchObject({ code: "ENOENT" });
      const process = { ...container.spec.process, args: ["echo", "here"] };
      expect((await later.execSync(soon(), { id, bundle, process }, limits)).stdout.toString()).toBe("here\n");
    });

    test.runIf(program === "crun")(
      "a start can be made again after a daemon that died with the gate open",
      async () => {
        for (const _ of [1, 2, 3]) {
          const { id, init } = await create(["sleep", "1000"]);
          await (await open(gateOf(bench, id), "w")).close();
          const later = await bench.reopen();
          await until(async () => (await readStat(init.pid))?.state === "R");
          expect(await later.isStarted(id)).toBe(false);
          await later.start(soon(), id);
          await until(async () => (await readFile(`/proc/${init.pid}/cmdline`, "utf8")).startsWith("sleep"));
        }
      },
    );

    test("a create that the daemon did not live to remember is taken down by its id", async () => {
      const { id, bundle, init, monitor } = await create(["sleep", "1000"]);
      await rm(join(bench.config.stateDir, "containers", `${id}.json`));
      const later = await bench.reopen();
      expect(await later.cgroupPaths(id)).toBeUndefined();
      await later.delete(soon(), id, bundle);
      expect([isAlive(init), monitor && isAlive(monitor)]).toEqual([false, false]);
      expect((await bench.leftovers()).filter((path) => path.includes(id))).toEqual([]);
    });

    test("a container that the kernel kills for want of memory is told as such", async () => {
      const { exit } = await start(["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"], {
        memoryBytes: 16 * mebibyte,
      });
      expect(await exit()).toMatchObject({ exitCode: 137, oomKilled: true });
    });

    test("a container that shares the host's processes leaves none when all are killed", async () => {
      const mark = `${40_000_000 + process.pid}`;
      const { id, init, exit } = await start(["sh", "-c", `setsid sleep ${mark} & exit 0`], { sharesHostPids: true });
      await exit();
      await until(async () => (await processesWith(`sleep ${mark}`)).length === 1);
      await bench.runtime.kill(id, init, 9, { all: true });
      expect(await processesWith(`sleep ${mark}`)).toEqual([]);
    });

    test("17 MiB of output are cut to 16, on both streams", async () => {
      const { exec } = await start(["sleep", "1000"]);
      const flood = "head -c 17825792 /dev/zero; head -c 17825792 /dev/zero >&2; exit 6";
      const { stdout, stderr, exitCode } = await exec(["sh", "-c", flood]);
      expect([stdout.length, stderr.length, exitCode]).toEqual([16 * mebibyte, 16 * mebibyte, 6]);
    });

    test("a process that keeps the output open does not keep the caller", async () => {
      const { exec } = await start(["sleep", "1000"]);
      const { stdout, exitCode } = await exec(["sh", "-c", "sleep 600 & echo done; exit 4"], { timeoutMs: 5_000 });
      expect([stdout.toString(), exitCode]).toEqual(["done\n", 4]);
    });

    test("a command ended by a signal reads as 128 and its number", async () => {
      const { exec } = await start(["sleep", "1000"]);
      expect((await exec(["sh", "-c", "kill -15 $$"])).exitCode).toBe(143);
    });

    test("a timeout finds who left the command's session and lost its parent, in the host's PID namespace", async () => {
      const mark = `${60_000_000 + process.pid}`;
      const { exec, init } = await start(["sleep", "1000"], { sharesHostPids: true });
      const waiting = exec(["sh", "-c", `(setsid sleep ${mark} &); sleep ${mark}`], { timeoutMs: 1_000 });
      await expect(waiting).rejects.toMatchObject({ code: Code.DeadlineExceeded });
      expect(await processesWith(`sleep ${mark}`)).toEqual([]);
      expect(isAlive(init)).toBe(true);
    });

    test("a timeout leaves no process of the command, wherever it went", async () => {
      const mark = `${50_000_000 + process.pid}`;
      const { exec, init } = await start(["sleep", "1000"]);
      const command = `(sleep ${mark} &); setsid sleep ${mark} & sh -c 'sleep ${mark}; :' & sleep ${mark}`;
      const waiting = exec(["sh", "-c", command], { timeoutMs: 1_000 });
      await expect(waiting).rejects.toMatchObject({
        code: Code.DeadlineExceeded,
        message: "command timed out after 1000 ms",
      });
      expect(await processesWith(`sleep ${mark}`)).toEqual([]);
      expect(isAlive(init)).toBe(true);
    });

    test("a failed update changes nothing", async () => {
      const { id } = await start(["sleep", "1000"], { memoryBytes: 64 * mebibyte });
      const cgroups = await bench.runtime.cgroupPaths(id);
      const memory = cgroups?.controllers["memory"] ?? "";
      const cpu = cgroups?.controllers["cpu"] ?? "";
      const values = async (): Promise<readonly string[]> => {
        const paths = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].map((name) => join(memory, name));
        const all = [...paths, join(cpu, "cpu.shares"), join(cpu, "cpu.cfs_quota_us")];
        return (await Promise.all(all.map((path) => readFile(path, "utf8")))).map((text) => text.trim());
      };
      await bench.runtime.update(soon(), id, { cpu: { shares: 512, quota: 20_000, period: 100_000 } });
      const before = await values();
      expect(before).toEqual([`${64 * mebibyte}`, `${64 * mebibyte}`, "512", "20000"]);
      const bad = {
        memory: { limit: 128 * mebibyte, swap: 128 * mebibyte },
        cpu: { shares: 256, quota: 10, period: 100_000 },
      };
      await expect(bench.runtime.update(soon(), id, bad)).rejects.toMatchObject({ code: Code.InvalidArgument });
      expect(await values()).toEqual(before);
      await bench.runtime.update(soon(), id, { memory: { limit: 96 * mebibyte }, cpu: { quota: -1 } });
      expect(await values()).toEqual([`${96 * mebibyte}`, `${96 * mebibyte}`, "512", "-1"]);
    });

    test("counts what a container uses", async () => {
      const { id, init } = await start(["sleep", "1000"], { memoryBytes: 64 * mebibyte });
      await until(async () => (await readFile(`/proc/${init.pid}/cmdline`, "utf8")).startsWith("sleep")); // runc's has threads
      const paths = await bench.runtime.cgroupPaths(id);
      const usage = paths && (await readContainerStats(paths));
      expect(usage?.cpuUsageNs).toBeGreaterThan(0n);
      expect(usage?.memory.usageBytes).toBeGreaterThan(0n);
      expect(usage?.memory.availableBytes).toBeGreaterThan(0n);
      expect(usage?.memory.availableBytes).toBeLessThanOrEqual(BigInt(64 * mebibyte));
      expect(usage?.taskCount).toBe(1n);
    });

    test("a terminal can be written to, read and resized", async () => {
      const command = "stty size; while read line; do echo got $line; stty size; done";
      const { bundle, exec } = await start(["sh", "-c", command], { terminal: true });
      const packets: Buffer[] = [];
      const handlers = { message: (packet: Buffer) => void packets.push(packet), closed: () => undefined };
      await using socket = await bench.runtime.attach(bundle, handlers);
      await bench.runtime.resize(bundle, { width: 132, height: 50 });
      await until(async () => (await exec(["sh", "-c", "stty size < /proc/1/fd/0"])).stdout.toString() === "50 132\n");
      await socket.send(Buffer.from("hello\n"));
      const text = (): string => Buffer.concat(packets.map((packet) => packet.subarray(1))).toString();
      await until(async () => text().includes("got hello\r\n50 132\r\n"));
      expect(packets.every((packet) => packet[0] === 2)).toBe(true);
    });

    test("the first client's end closes standard input when it is for once", async () => {
      const once = await start(["cat"], { stdin: true, stdinOnce: true });
      const socket = await bench.runtime.attach(once.bundle, { message: () => undefined, closed: () => undefined });
      await socket.send(Buffer.from("hello\n"));
      await until(async () => (await readFile(once.logPath, "utf8")).includes("stdout F hello\n"));
      socket.close();
      expect((await once.exit()).exitCode).toBe(0);
    });

    test("standard input stays open between clients when it is not", async () => {
      const kept = await start(["cat"], { stdin: true });
      for (const word of ["one", "two"]) {
        const socket = await bench.runtime.attach(kept.bundle, { message: () => undefined, closed: () => undefined });
        await socket.send(Buffer.from(`${word}\n`));
        await until(async () => (await readFile(kept.logPath, "utf8")).includes(`stdout F ${word}\n`));
        socket.close();
      }
      expect(isAlive(kept.init)).toBe(true);
    });

    test("a streamed command reads, writes and can be killed", async () => {
      const { id, bundle, spec } = await start(["sleep", "1000"]);
      const open = (args: readonly string[]) =>
        bench.runtime.exec(soon(), { id, bundle, process: { ...spec.process, args } });
      const echo = await open(["sh", "-c", "cat; echo bye >&2; exit 9"]);
      const sent = Buffer.alloc(3 * mebibyte, "x");
      echo.stdin.end(sent);
      let received = 0;
      for await (const chunk of echo.stdout) received += Buffer.from(chunk).length;
      let complaint = "";
      for await (const chunk of echo.stderr ?? []) complaint += String(chunk);
      expect([received, complaint, await echo.exited]).toEqual([sent.length, "bye\n", 9]);
      const endless = await open(["sleep", "900"]);
      await endless.kill();
      expect(await endless.exited).toBe(137);
      await expect(open(["no-such-program"])).rejects.toMatchObject({ code: Code.InvalidArgument });
    });

    test("a streamed command on a terminal is resized", async () => {
      const { id, bundle, spec, exec } = await start(["sleep", "1000"]);
      const process = { ...spec.process, terminal: true, args: ["sh", "-c", "read go; stty size; exit 3"] };
      const streams = await bench.runtime.exec(soon(), { id, bundle, process });
      expect(streams.stderr).toBeUndefined();
      streams.resize({ width: 111, height: 33 });
      await until(async () => (await exec(["sh", "-c", "stty size < /dev/pts/0"])).stdout.toString() === "33 111\n");
      streams.stdin.write("go\n");
      let text = "";
      for await (const chunk of streams.stdout) text += String(chunk);
      expect(text).toBe("go\r\n33 111\r\n");
      expect(await streams.exited).toBe(3);
      const missing = bench.runtime.exec(soon(), { id, bundle, process: { ...process, args: ["no-such-program"] } });
      await expect(missing).rejects.toMatchObject({ code: Code.InvalidArgument });
      const endless = await bench.runtime.exec(soon(), { id, bundle, process: { ...process, args: ["sleep", "900"] } });
      endless.stdout.resume();
      await endless.kill();
      expect(await endless.exited).toBe(137);
    });

    test("many containers and commands at once do not get into each other's way", async () => {
      const numbers = Array.from({ length: 8 }, (_, index) => index);
      const containers = await Promise.all(numbers.map(() => start(["sleep", "1000"])));
      const said = await Promise.all(
        numbers.flatMap((n) => containers.map(({ exec, id }) => exec(["echo", `${n} in ${id}`]))),
      );
      const expected = numbers.flatMap((n) => containers.map(({ id }) => `${n} in ${id}\n`));
      expect(said.map(({ stdout }) => stdout.toString())).toEqual(expected);
      for (const { id, init } of containers) await bench.runtime.kill(id, init, 9);
      expect((await Promise.all(containers.map(({ exit }) => exit()))).map(({ exitCode }) => exitCode)).toEqual(
        numbers.map(() => 137),
      );
    });

    test("a command's output is not lost where this thread was too busy to read before the time for it was over", async () => {
      const beBusy = (ms: number): void => {
        for (const end = performance.now() + ms; performance.now() < end; );
      };
      const { exec } = await start(["sleep", "1000"]);
      const nap = `sleep 1.2${process.pid}`;
      const said = exec(["sh", "-c", `${nap}; echo said`]);
      await until(async () => (await processesWith(nap)).length > 0);
      const quiet = { env: {}, stdio: ["null", "null", "null"] } as const;
      const last = await spawn({ argv: ["/bin/sleep", "1.6"], ...quiet });
      const first = await spawn({ argv: ["/bin/true"], ...quiet });
      await first.exited; // we are called by the addon now, which has the other ends to tell as soon as we return
      void last.exited.then(() => beBusy(400));
      beBusy(2_000);
      expect((await said).stdout.toString()).toBe("said\n");
    });

    test("a bundle's path may be longer than a socket's", async () => {
      const { id, spec, ...others } = await bench.prepareSpec(["sleep", "1000"]);
      const bundle = join(others.bundle, "d".repeat(120));
      await mkdir(bundle);
      onTestFinished(async () => await bench.runtime.delete(soon(), id, bundle));
      await bench.runtime.create(soon(), { ...others, id, bundle, spec });
      await using socket = await bench.runtime.attach(bundle, { message: () => undefined, closed: () => undefined });
      expect(socket).toBeDefined();
    });
  });
}

describe("a create that goes wrong", () => {
  let bench: Bench;
  beforeAll(async () => {
    bench = await openBench("crun");
  });
  afterAll(async () => {
    expect(await bench.leftovers()).toEqual([]);
    await bench[Symbol.asyncDispose]();
    expect(await processesWith(bench.directory)).toEqual([]);
  });

  async function script(name: string, text: string): Promise<string> {
    const path = join(bench.directory, name);
    await writeFile(path, `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    return path;
  }

  /** A runtime that is crun until it is asked to create. */
  async function runtimeWhoseCreate(does: string): Promise<string> {
    return await script(
      `runtime-${Math.random()}`,
      `case " $* " in *" create "*) ${does} ;; esac\nexec /usr/bin/crun "$@"`,
    );
  }

  async function failure(
    overrides: { path?: string; monitorPath?: string },
    signal = soon(),
    bundleOf = (bundle: string): string => bundle,
  ) {
    const runtime = await bench.reopen(overrides);
    const prepared = await bench.prepareSpec(["sleep", "1000"]);
    const container = { ...prepared, bundle: bundleOf(prepared.bundle) };
    const thrown: unknown = await runtime.create(signal, container).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(await readdir(container.bundle)).toEqual([]);
    expect(await processesWith(container.id)).toEqual([]);
    expect(await bench.leftovers()).toEqual([]);
    if (!(thrown instanceof Error)) throw new Error("create did not fail");
    expect(thrown.message).not.toContain(bench.directory);
    expect(thrown.message.length).toBeLessThan(700);
    return thrown;
  }

  test("a runtime that hangs is given up with the caller, and nothing is left", async () => {
    const path = await runtimeWhoseCreate("sleep 600");
    const thrown = await failure({ path }, AbortSignal.timeout(700));
    expect(thrown.name).toBe("TimeoutError");
  });

  test("a runtime that hangs with a container half made is given up, and nothing is left", async () => {
    const path = await runtimeWhoseCreate('/usr/bin/crun "$@"; sleep 600');
    const thrown = await failure({ path }, AbortSignal.timeout(1_500));
    expect(thrown.name).toBe("TimeoutError");
  });

  test("a runtime that dies with one of the container's cgroups made, any one, leaves none and nobody in it", async () => {
    const nap = `sleep ${80_000_000 + process.pid}`;
    const { unified, controllers } = await readCgroupMounts();
    const mounts = [...Object.values(controllers), ...(unified ? [unified] : [])];
    for (const mountPoint of new Set(mounts.map((mount) => mount.mountPoint))) {
      const path = await runtimeWhoseCreate(
        `cgroup="${mountPoint}$(grep -o '"cgroupsPath":"[^"]*"' config.json | cut -d '"' -f 4)"
        mkdir -p "$cgroup"
        setsid sh -c 'echo $$ > "$0/cgroup.procs" && exec ${nap}' "$cgroup" > /dev/null 2>&1 & # a cpuset lets none in
        until grep -q . "$cgroup/cgroup.procs" || ! kill -0 $! 2> /dev/null; do sleep 0.01; done
        kill -9 $$`,
      );
      expect(await failure({ path })).toMatchObject({ code: Code.Internal });
      expect(await processesWith(nap)).toEqual([]);
    }
  });

  test("a runtime's garbage becomes one short printable reason", async () => {
    const path = await runtimeWhoseCreate("head -c 3000 /dev/urandom >&2; exit 1");
    const thrown = await failure({ path });
    expect(thrown).toMatchObject({ code: Code.Internal });
    expect(thrown.message).toMatch(/^cannot create container "[^"]+": /);
    expect(thrown.message).not.toMatch(/[\p{Cc}]/u);
  });

  test("a runtime that says too much is cut short", async () => {
    const path = await runtimeWhoseCreate("head -c 60000 /dev/zero | tr '\\0' x >&2; exit 1");
    expect(await failure({ path })).toMatchObject({ code: Code.Internal });
  });

  test("a runtime that floods its output, which conmon does not read, is given up with the caller", async () => {
    const path = await runtimeWhoseCreate("head -c 50000000 /dev/zero | tr '\\0' x >&2; exit 1");
    expect((await failure({ path }, AbortSignal.timeout(1_000))).name).toBe("TimeoutError");
  });

  test("a runtime that dies without a word is an error", async () => {
    const path = await runtimeWhoseCreate("kill -9 $$");
    expect(await failure({ path })).toMatchObject({ code: Code.Internal });
  });

  const monitors = {
    "that says something else": "printf 'hello\\n' >&3",
    "that says no end of it": "head -c 5000000 /dev/zero | tr '\\0' x >&3",
    "that says nothing": "exit 0",
    "that complains and ends": "echo 'wrong flag' >&2; exit 1",
    "that names a process that is not there": "printf '{\"pid\": 4194300}\\n' >&3",
  };
  for (const [what, does] of Object.entries(monitors)) {
    test(`a monitor ${what} is an error`, async () => {
      const monitorPath = await script(`monitor-${Math.random()}`, does);
      expect(await failure({ monitorPath })).toMatchObject({ code: Code.Internal });
    });
  }

  test("a monitor that hangs is given up with the caller", async () => {
    const monitorPath = await script("monitor-hangs", "sleep 600");
    expect((await failure({ monitorPath }, AbortSignal.timeout(500))).name).toBe("TimeoutError");
  });

  test("a monitor that hangs where a link leads to is given up with the caller", async () => {
    const monitorPath = await script("monitor-hangs-there", "sleep 600");
    const link = join(bench.directory, "link");
    await symlink(bench.directory, link);
    const bundleOf = (bundle: string): string => bundle.replace(bench.directory, link);
    expect((await failure({ monitorPath }, AbortSignal.timeout(500), bundleOf)).name).toBe("TimeoutError");
  });

  test("a monitor that does its work and does not end is given up with the caller, and nothing is left", async () => {
    const monitorPath = await script("monitor-stays", 'conmon "$@"; sleep 600');
    expect((await failure({ monitorPath }, AbortSignal.timeout(2_000))).name).toBe("TimeoutError");
  });

  test("a log that was there before stays", async () => {
    const runtime = await bench.reopen();
    const container = { ...(await bench.prepareSpec(["no-such-program"])), keepsLog: true };
    await writeFile(container.logPath, "of an earlier attempt\n");
    await expect(runtime.create(soon(), container)).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(await readFile(container.logPath, "utf8")).toContain("of an earlier attempt\n");
    expect(await readdir(container.bundle)).toEqual(["log"]);
  });
});
