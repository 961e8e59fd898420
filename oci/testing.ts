import { readdir, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Code, CriError } from "../cri-api/index.ts";
import { configPathOf } from "./index.ts";
import type { ContainerExit, CreateProcess, Runtime } from "./index.ts";

interface FakeContainer {
  readonly init: { readonly pid: number; readonly startTime: string };
  readonly args: readonly string[];
  readonly bundle: string;
  isStarted: boolean;
  readonly ended: Promise<ContainerExit>;
  readonly end: (exit: ContainerExit) => void;
  exit?: ContainerExit;
}

/** What a fake can be told to do wrong. */
export type FakeOperation = "create" | "start" | "delete" | "execSync" | "update" | "reopenLog";

/** A runtime without processes, for the unit tests of who uses one. Passes the same contract as the real ones. */
export interface FakeRuntime extends Runtime {
  /** Ids of containers that are not deleted. */
  readonly ids: readonly string[];
  /** What was asked, in order: `create <id>`, `start <id>`, `kill <id> <signal>`, `delete <id>` ... */
  readonly journal: readonly string[];
  /** Ends a container's init as if on its own. */
  finish(id: string, exit: Partial<ContainerExit>): void;
  /** The next call of this operation rejects with the error and changes nothing. */
  failNext(operation: FakeOperation, error: Error): void;
}

/** Pids above any real one: a caller that looks at /proc by mistake finds nothing. */
const firstFakePid = 2 ** 22 + 1;

const programs: Readonly<
  Record<string, (args: readonly string[]) => { exitCode: number; stdout: string } | "forever">
> = {
  true: () => ({ exitCode: 0, stdout: "" }),
  false: () => ({ exitCode: 1, stdout: "" }),
  echo: (args) => ({ exitCode: 0, stdout: `${args.slice(1).join(" ")}\n` }),
  sleep: () => "forever",
  sh: (args) => ({ exitCode: Number(/exit (\d+)/.exec(args.join(" "))?.[1] ?? 0), stdout: "" }),
};

/** Knows the commands `sleep`, `true`, `false`, `echo` and `sh -c "exit N"`; every other one is not found. */
export function createFakeRuntime(handler = "fake"): FakeRuntime {
  const containers = new Map<string, FakeContainer>();
  const journal: string[] = [];
  const failures = new Map<FakeOperation, Error>();
  let nextPid = firstFakePid;

  function begin(operation: FakeOperation, id: string, signal: AbortSignal): void {
    signal.throwIfAborted();
    journal.push(`${operation} ${id}`);
    const failure = failures.get(operation);
    failures.delete(operation);
    if (failure) throw failure;
  }

  function end(container: FakeContainer, exitCode: number, oomKilled = false, finishedAtNs = now()): void {
    if (container.exit) return;
    container.exit = { exitCode, finishedAtNs, oomKilled };
    container.end(container.exit);
  }

  function requireContainer(id: string): FakeContainer {
    const container = containers.get(id);
    if (!container) throw new CriError(Code.FailedPrecondition, `container "${id}" is not created`);
    return container;
  }

  function requireRunning(id: string): FakeContainer {
    const container = containers.get(id);
    if (container?.isStarted && !container.exit) return container;
    throw new CriError(Code.FailedPrecondition, `container "${id}" is not running`);
  }

  const fake: FakeRuntime = {
    handler,
    version: "1.0.0",
    features: { recursiveReadOnlyMounts: true, userNamespaces: false, networkDevices: false },
    journal,
    get ids() {
      return [...containers.keys()];
    },
    finish: (id, exit) =>
      end(requireContainer(id), exit.exitCode ?? 0, exit.oomKilled ?? false, exit.finishedAtNs ?? now()),
    failNext: (operation, error) => void failures.set(operation, error),
    async create(signal, { id, bundle, spec }) {
      begin("create", id, signal);
      if (containers.has(id))
        throw new CriError(Code.FailedPrecondition, `container "${id}" already exists in the runtime`);
      const { args } = spec.process;
      findProgram(args, `cannot create container "${id}"`);
      await writeFile(configPathOf(bundle), JSON.stringify(spec), { mode: 0o600 });
      const { promise: ended, resolve } = Promise.withResolvers<ContainerExit>();
      const init = { pid: nextPid++, startTime: "1" };
      containers.set(id, { init, args, bundle, isStarted: false, ended, end: resolve });
      return { init, monitor: { pid: nextPid++, startTime: "1" } };
    },
    async start(signal, id) {
      begin("start", id, signal);
      const container = requireContainer(id);
      if (container.isStarted || container.exit) {
        throw new CriError(Code.FailedPrecondition, `cannot start container "${id}": it is not in created state`);
      }
      container.isStarted = true;
      const outcome = findProgram(container.args, "")(container.args);
      if (outcome !== "forever") end(container, outcome.exitCode);
    },
    isStarted: async (id) => containers.get(id)?.isStarted ?? true,
    async kill(id, _init, signal) {
      journal.push(`kill ${id} ${signal}`);
      const container = containers.get(id);
      if (container) end(container, 128 + signal);
    },
    async delete(signal, id, bundle) {
      begin("delete", id, signal);
      const container = containers.get(id);
      if (container) end(container, 137);
      containers.delete(id);
      await rm(configPathOf(bundle), { force: true });
    },
    async execSync(signal, exec, limits) {
      begin("execSync", exec.id, signal);
      requireRunning(exec.id);
      const outcome = findProgram(
        exec.process.args,
        `cannot execute a command in container "${exec.id}"`,
      )(exec.process.args);
      if (outcome !== "forever") {
        const stdout = Buffer.from(outcome.stdout).subarray(0, limits.maxOutputBytes);
        return { stdout, stderr: Buffer.alloc(0), exitCode: outcome.exitCode };
      }
      if (limits.timeoutMs > 0)
        throw new CriError(Code.DeadlineExceeded, `command timed out after ${limits.timeoutMs} ms`);
      await aborted(signal);
      throw signal.reason;
    },
    async exec(signal, exec) {
      begin("execSync", exec.id, signal);
      requireRunning(exec.id);
      const outcome = findProgram(
        exec.process.args,
        `cannot execute a command in container "${exec.id}"`,
      )(exec.process.args);
      const { promise: exited, resolve } = Promise.withResolvers<number>();
      const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
      const finish = (exitCode: number, text: string): void => {
        stdout.end(text);
        stderr.end();
        resolve(exitCode);
      };
      if (outcome !== "forever") finish(outcome.exitCode, outcome.stdout);
      return {
        stdin,
        stdout,
        stderr: exec.process.terminal ? undefined : stderr,
        exited,
        resize: () => undefined,
        kill: async () => finish(137, ""),
      };
    },
    async update(signal, id) {
      begin("update", id, signal);
      requireContainer(id);
    },
    async reopenLog(signal, bundle, logPath) {
      begin("reopenLog", basename(bundle), signal);
      await writeFile(logPath, "");
    },
    resize: async () => undefined,
    async attach() {
      throw new CriError(Code.FailedPrecondition, "the container's monitor is gone");
    },
    readExit: async (id) => containers.get(id)?.exit,
    async waitForExit(id, _init, _monitor, signal) {
      signal.throwIfAborted();
      const container = containers.get(id);
      if (!container) return { exitCode: 255, finishedAtNs: now(), oomKilled: false };
      const exit = await Promise.race([container.ended, aborted(signal)]);
      if (exit) return exit;
      throw signal.reason;
    },
    findOomKill: async (id) =>
      containers.get(id)?.exit?.oomKilled ? { task: "hungry", limit: "container" } : undefined,
    cgroupPaths: async (id) => (containers.has(id) ? { unified: undefined, controllers: {} } : undefined),
  };
  return fake;
}

function findProgram(args: readonly string[], what: string): (typeof programs)[string] {
  const program = programs[basename(args[0] ?? "")];
  if (program) return program;
  throw new CriError(Code.InvalidArgument, `${what}: executable "${args[0]}" not found`);
}

function now(): bigint {
  return BigInt(Date.now()) * 1_000_000n;
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  signal.addEventListener("abort", () => resolve(undefined), { once: true });
  await promise;
}

/** A runtime under test, and how to get containers for it. */
export interface ContractSubject extends AsyncDisposable {
  readonly runtime: Runtime;
  /** A new id with a bundle of its own whose root filesystem has `sleep`, `true`, `sh` and `echo`. Not created yet. */
  prepare(args: readonly string[]): Promise<CreateProcess>;
}

/** What every `Runtime` must do, real or fake. */
export function describeRuntimeContract(name: string, open: () => Promise<ContractSubject>): void {
  describe(name, () => {
    let subject: ContractSubject;
    beforeAll(async () => {
      subject = await open();
    });
    afterAll(async () => {
      await subject[Symbol.asyncDispose]();
    });

    const soon = (): AbortSignal => AbortSignal.timeout(20_000);
    const noLimits = { timeoutMs: 0, maxOutputBytes: 1024 * 1024 };

    async function created(args: readonly string[]) {
      const container = await subject.prepare(args);
      const { init, monitor } = await subject.runtime.create(soon(), container);
      const exit = (signal = soon()) => subject.runtime.waitForExit(container.id, init, monitor, signal);
      const remove = () => subject.runtime.delete(soon(), container.id, container.bundle);
      const exec = (args: readonly string[], limits = noLimits, signal = soon()) =>
        subject.runtime.execSync(
          signal,
          { id: container.id, bundle: container.bundle, process: { ...container.spec.process, args } },
          limits,
        );
      return { ...container, init, exit, remove, exec, [Symbol.asyncDispose]: remove };
    }

    async function running(args: readonly string[]) {
      const container = await created(args);
      await subject.runtime.start(soon(), container.id);
      return container;
    }

    test("a created container waits for its start", async () => {
      await using container = await created(["sleep", "1000"]);
      expect(await subject.runtime.isStarted(container.id)).toBe(false);
      await subject.runtime.start(soon(), container.id);
      expect(await subject.runtime.isStarted(container.id)).toBe(true);
      expect(await subject.runtime.readExit(container.id)).toBeUndefined();
    });

    test("the command's exit code is the container's", async () => {
      const startedAtNs = BigInt(Date.now()) * 1_000_000n;
      await using container = await running(["sh", "-c", "exit 7"]);
      const exit = await container.exit();
      expect(exit).toMatchObject({ exitCode: 7, oomKilled: false });
      expect(exit.finishedAtNs).toBeGreaterThanOrEqual(startedAtNs - 100_000_000n);
      expect(await subject.runtime.readExit(container.id)).toEqual(exit);
    });

    test("an exit is known to who asks for it later", async () => {
      await using container = await running(["true"]);
      const first = await container.exit();
      expect(await container.exit()).toEqual(first);
    });

    test("a killed container exits with 128 and the signal's number", async () => {
      await using container = await running(["sleep", "1000"]);
      await subject.runtime.kill(container.id, container.init, 9);
      expect((await container.exit()).exitCode).toBe(137);
    });

    test("signalling a container that has ended does nothing", async () => {
      await using container = await running(["true"]);
      const exit = await container.exit();
      await subject.runtime.kill(container.id, container.init, 9, { all: true });
      expect(await container.exit()).toEqual(exit);
    });

    test("a created container can be killed before it ever ran", async () => {
      await using container = await created(["true"]);
      await subject.runtime.kill(container.id, container.init, 9);
      expect((await container.exit()).exitCode).toBe(137);
    });

    test("waiting for an exit ends with the signal's reason", async () => {
      await using container = await running(["sleep", "1000"]);
      const given = new AbortController();
      const waiting = container.exit(given.signal);
      given.abort(new Error("shutting down"));
      await expect(waiting).rejects.toThrow("shutting down");
    });

    test("delete takes down a running container, and may be said again", async () => {
      const container = await running(["sleep", "1000"]);
      await container.remove();
      expect(await readdir(container.bundle)).not.toContain("config.json");
      await container.remove();
      expect(await subject.runtime.readExit(container.id)).toBeUndefined();
      expect(await subject.runtime.cgroupPaths(container.id)).toBeUndefined();
    });

    test("delete of an id that never was succeeds", async () => {
      const container = await subject.prepare(["true"]);
      await subject.runtime.delete(soon(), container.id, container.bundle);
    });

    test("an executable that is not there is named, and the id is free again", async () => {
      const container = await subject.prepare(["no-such-program"]);
      await expect(subject.runtime.create(soon(), container)).rejects.toMatchObject({
        code: Code.InvalidArgument,
        message: `cannot create container "${container.id}": executable "no-such-program" not found`,
      });
      const process = { ...container.spec.process, args: ["true"] };
      await subject.runtime.create(soon(), { ...container, spec: { ...container.spec, process } });
      await subject.runtime.delete(soon(), container.id, container.bundle);
    });

    test("an id that is taken stays with its container", async () => {
      await using container = await running(["sleep", "1000"]);
      await expect(subject.runtime.create(soon(), container)).rejects.toMatchObject({ code: Code.FailedPrecondition });
      expect((await container.exec(["true"])).exitCode).toBe(0);
    });

    test("a container starts once", async () => {
      await using container = await running(["sleep", "1000"]);
      await expect(subject.runtime.start(soon(), container.id)).rejects.toMatchObject({
        code: Code.FailedPrecondition,
      });
    });

    test("a create that is given up before it begins does nothing", async () => {
      const container = await subject.prepare(["true"]);
      const signal = AbortSignal.abort(new Error("given up"));
      await expect(subject.runtime.create(signal, container)).rejects.toThrow("given up");
      expect(await subject.runtime.cgroupPaths(container.id)).toBeUndefined();
    });

    test("a command's output and exit code come back", async () => {
      await using container = await running(["sleep", "1000"]);
      const said = await container.exec(["echo", "hello", "world"]);
      expect(said).toEqual({ stdout: Buffer.from("hello world\n"), stderr: Buffer.alloc(0), exitCode: 0 });
      expect((await container.exec(["sh", "-c", "exit 3"])).exitCode).toBe(3);
    });

    test("a command that is not there is an error and no exit code", async () => {
      await using container = await running(["sleep", "1000"]);
      await expect(container.exec(["no-such-program"])).rejects.toMatchObject({
        code: Code.InvalidArgument,
        message: `cannot execute a command in container "${container.id}": executable "no-such-program" not found`,
      });
    });

    test("a command that takes too long is killed", async () => {
      await using container = await running(["sleep", "1000"]);
      await expect(container.exec(["sleep", "900"], { ...noLimits, timeoutMs: 100 })).rejects.toMatchObject({
        code: Code.DeadlineExceeded,
      });
    });

    test("a command whose caller leaves is killed", async () => {
      await using container = await running(["sleep", "1000"]);
      const given = new AbortController();
      const waiting = container.exec(["sleep", "900"], noLimits, given.signal);
      given.abort(new Error("the client left"));
      await expect(waiting).rejects.toThrow("the client left");
    });

    test("no command runs in a container that does not", async () => {
      await using container = await created(["true"]);
      await expect(container.exec(["true"])).rejects.toMatchObject({ code: Code.FailedPrecondition });
      await subject.runtime.start(soon(), container.id);
      await container.exit();
      await expect(container.exec(["true"])).rejects.toMatchObject({ code: Code.FailedPrecondition });
    });

    test("a streamed command hands out its output and exit code", async () => {
      await using container = await running(["sleep", "1000"]);
      const streams = await subject.runtime.exec(soon(), {
        id: container.id,
        bundle: container.bundle,
        process: { ...container.spec.process, args: ["echo", "streamed"] },
      });
      streams.stdin.end();
      let text = "";
      for await (const chunk of streams.stdout) text += String(chunk);
      expect(text).toBe("streamed\n");
      expect(await streams.exited).toBe(0);
    });
  });
}
