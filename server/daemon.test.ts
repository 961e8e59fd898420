import { once } from "node:events";
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call } from "../cri-api/index.ts";
import { startDaemon } from "./daemon.ts";
import type { Daemon } from "./daemon.ts";
import type { HandlerTable } from "./handlers.ts";
import { createLogBook, createTestClient, makeScratch, openRawCall, tableWith } from "./testing.ts";
import type { LogLine, TestClient } from "./testing.ts";

interface Served extends AsyncDisposable {
  readonly daemon: Daemon;
  readonly client: TestClient;
  readonly socket: string;
  readonly lines: LogLine[];
  readonly disposed: string[];
}

async function serve(handlers: Partial<HandlerTable>, graceMs = 5000): Promise<Served> {
  await using undo = new AsyncDisposableStack();
  const scratch = undo.use(await makeScratch());
  const socket = join(scratch.path, "run", "berth.sock");
  const { log, lines } = createLogBook();
  const disposed: string[] = [];
  const daemon = await startDaemon({
    socket,
    privateDirectories: ["/var/lib/berth", scratch.path],
    log,
    graceMs,
    openRooms: async () => ({
      handlers: tableWith(handlers),
      [Symbol.asyncDispose]: async () => void disposed.push("rooms"),
    }),
  });
  undo.defer(() => daemon.stop());
  const client = undo.use(createTestClient(socket));
  const keep = undo.move();
  return { daemon, client, socket, lines, disposed, [Symbol.asyncDispose]: () => keep.disposeAsync() };
}

/** Rejects with the signal's reason when it aborts; the listener keeps the loop turning on its own. */
async function untilAborted(call: Call): Promise<never> {
  await once(call.signal, "abort");
  throw call.signal.reason;
}

/** A handler that waits for its abort and tells when it began. */
function createWaiter(): { handler: (call: Call) => Promise<never>; began: Promise<Call>; ended: Promise<unknown> } {
  const began = Promise.withResolvers<Call>();
  const ended = Promise.withResolvers<unknown>();
  const handler = async (call: Call): Promise<never> => {
    began.resolve(call);
    return await untilAborted(call).catch((thrown: unknown) => {
      ended.resolve(thrown);
      throw thrown;
    });
  };
  return { handler, began: began.promise, ended: ended.promise };
}

const version = { version: "0.1.0", runtimeName: "berth", runtimeVersion: "1", runtimeApiVersion: "v1" };

function lineOf(lines: readonly LogLine[], rpc: string): LogLine | undefined {
  return lines.find((line) => line.text === "rpc done" && line.fields["rpc"] === rpc);
}

/** Throws before there is even a promise. */
function fail(thrown: unknown): never {
  // oxlint-disable-next-line typescript/only-throw-error -- a room might, and the wrapper must stand it
  throw thrown;
}

const rejections: unknown[] = [];
const keepRejection = (thrown: unknown): void => void rejections.push(thrown);
beforeEach(() => void process.on("unhandledRejection", keepRejection));
afterEach(() => {
  process.off("unhandledRejection", keepRejection);
  expect(rejections.splice(0)).toEqual([]);
});

describe("answers", () => {
  test("both services answer on one socket, each call under an id of its own", async () => {
    const ids: string[] = [];
    await using served = await serve({
      Version: async (call) => {
        ids.push(call.requestId);
        return version;
      },
      ImageStatus: async (_call, request) => ({ image: { id: request.image?.image, size: 2n ** 63n } }),
    });
    expect(await served.client.unary("Version", {})).toEqual(version);
    expect(await served.client.unary("Version", {})).toEqual(version);
    expect(new Set(ids).size).toBe(2);
    const { image } = await served.client.unary("ImageStatus", { image: { image: "busybox" } });
    expect(image).toMatchObject({ id: "busybox", size: 2n ** 63n });
    expect(lineOf(served.lines, "Version")).toMatchObject({
      level: "debug",
      fields: { code: "Ok", requestId: ids[0] },
    });
    expect(lineOf(served.lines, "Version")?.fields["durationMs"]).toBeGreaterThanOrEqual(0);
  });

  test("an RPC that is not built answers Unimplemented, unary or stream", async () => {
    await using served = await serve({});
    await expect(served.client.unary("Attach", {})).rejects.toMatchObject({
      code: status.UNIMPLEMENTED,
      details: "RuntimeService.Attach is not implemented",
    });
    const [error] = await once(served.client.stream("StreamImages", {}), "error");
    expect(error).toMatchObject({ code: status.UNIMPLEMENTED });
  });

  test("a message of 20 MiB passes there and back", async () => {
    await using served = await serve({
      ExecSync: async (_call, request) => ({ stdout: Buffer.from(request.cmd[0] ?? "") }),
    });
    const text = "x".repeat(20 * 1024 * 1024);
    expect((await served.client.unary("ExecSync", { cmd: [text] })).stdout).toHaveLength(text.length);
  });

  test("a request over the limit is ResourceExhausted, and the next call works", async () => {
    await using served = await serve({ Version: async () => version });
    const request = { version: "x".repeat(33 * 1024 * 1024) };
    await expect(served.client.unary("Version", request)).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(await served.client.unary("Version", {})).toEqual(version);
  });

  test("an answer over the limit is ResourceExhausted, and the next call works", async () => {
    await using served = await serve({
      ExecSync: async () => ({ stdout: Buffer.alloc(81 * 1024 * 1024) }),
      Version: async () => version,
    });
    await expect(served.client.unary("ExecSync", {})).rejects.toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    expect(await served.client.unary("Version", {})).toEqual(version);
  });
});

describe("errors", () => {
  test.each([
    [new CriError(Code.NotFound, 'container "abc" not found'), status.NOT_FOUND, 'container "abc" not found', "info"],
    [new CriError(Code.Unknown, "RegistryUnavailable: 503"), status.UNKNOWN, "RegistryUnavailable: 503", "warn"],
    [new TypeError("x is not a function"), status.INTERNAL, "x is not a function", "warn"],
    [
      new Error("open /var/lib/berth/images/a: EIO\n    at open (/app/x.ts:1:2)"),
      status.INTERNAL,
      "open [internal path]: EIO",
      "warn",
    ],
    [new CriError(Code.InvalidArgument, "bad \ud800 text"), status.INVALID_ARGUMENT, "bad \ufffd text", "info"],
    [
      new SuppressedError(new Error("undo"), new CriError(Code.FailedPrecondition, "first")),
      status.FAILED_PRECONDITION,
      "first",
      "info",
    ],
    ["a string", status.INTERNAL, "a string", "warn"],
  ])("%s reaches the caller with its code, and the log with its level", async (thrown, code, details, level) => {
    await using served = await serve({
      Version: () => Promise.reject(thrown),
      Status: () => fail(thrown),
    });
    await expect(served.client.unary("Version", {})).rejects.toMatchObject({ code, details });
    await expect(served.client.unary("Status", {})).rejects.toMatchObject({ code, details });
    expect(lineOf(served.lines, "Version")?.level).toBe(level);
  });

  test("the log keeps what the caller is not told: path and stack", async () => {
    await using served = await serve({
      Version: async () => {
        throw new Error("open /var/lib/berth/images/a: EIO");
      },
    });
    await expect(served.client.unary("Version", {})).rejects.toThrow("[internal path]");
    const fields = lineOf(served.lines, "Version")?.fields;
    expect(fields?.["error"]).toContain("/var/lib/berth/images/a");
    expect(fields?.["stack"]).toContain("daemon.test.ts");
  });

  test("a request that is no such message is InvalidArgument", async () => {
    await using served = await serve({ RunPodSandbox: async () => ({}) });
    const badEnum = { config: { portMappings: [{ protocol: 7 as never }] } };
    await expect(served.client.unary("RunPodSandbox", badEnum)).rejects.toMatchObject({
      code: status.INVALID_ARGUMENT,
      details: expect.stringContaining("no Protocol has the number 7") as string,
    });
  });
});

describe("deadlines and cancellation", () => {
  test("a passed deadline aborts the signal and is told as DeadlineExceeded", async () => {
    const waiter = createWaiter();
    await using served = await serve({ StopContainer: waiter.handler, Version: async () => version });
    await served.client.unary("Version", {}); // the connection stands: the deadline is the call's alone
    const call = served.client.unary("StopContainer", {}, { deadline: Date.now() + 1_000 });
    await expect(call).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    expect(await waiter.ended).toMatchObject({ code: Code.DeadlineExceeded });
    await expect.poll(() => lineOf(served.lines, "StopContainer")?.fields["code"]).toBe("DeadlineExceeded");
  });

  test("a client that goes away aborts the signal with Canceled", async () => {
    const waiter = createWaiter();
    await using served = await serve({ PullImage: waiter.handler });
    const { call, response } = served.client.start("PullImage", {});
    const failed = expect(response).rejects.toMatchObject({ code: status.CANCELLED });
    await waiter.began;
    call.cancel();
    expect(await waiter.ended).toMatchObject({ code: Code.Canceled });
    await failed;
  });

  test("a client whose connection breaks aborts the signal", async () => {
    const waiter = createWaiter();
    await using served = await serve({ PullImage: waiter.handler });
    const { breakConnection } = openRawCall(served.socket, "PullImage");
    await waiter.began;
    breakConnection();
    expect(await waiter.ended).toMatchObject({ code: Code.Canceled });
  });

  test("a finished call's signal never aborts", async () => {
    const calls: Call[] = [];
    await using served = await serve({
      Version: async (call) => {
        calls.push(call);
        return version;
      },
    });
    await served.client.unary("Version", {}, { deadline: Date.now() + 60_000 });
    await served.client.unary("Version", {});
    await served.daemon.stop();
    expect(calls.map((call) => call.signal.aborted)).toEqual([false, false]);
  });

  test("a handler that ignores its deadline does not keep the caller waiting", async () => {
    const release = Promise.withResolvers<void>();
    await using served = await serve({ Status: () => release.promise.then(() => ({})) });
    await expect(served.client.unary("Status", {}, { deadline: Date.now() + 50 })).rejects.toMatchObject({
      code: status.DEADLINE_EXCEEDED,
    });
    release.resolve();
  });
});

describe("streams", () => {
  async function* countTo(limit: number, onNext: (n: number) => void): AsyncGenerator<{ containerId: string }> {
    for (let n = 0; n < limit; n += 1) {
      onNext(n);
      yield { containerId: `${n}:${"x".repeat(64 * 1024)}` };
    }
  }

  test("every message arrives, in order, and the end is OK", async () => {
    await using served = await serve({ GetContainerEvents: () => countTo(50, () => undefined) });
    const received: string[] = [];
    for await (const event of served.client.stream("GetContainerEvents", {}))
      received.push(event.containerId.split(":")[0] ?? "");
    expect(received).toEqual(Array.from({ length: 50 }, (_, n) => String(n)));
    expect(lineOf(served.lines, "GetContainerEvents")?.fields["code"]).toBe("Ok");
  });

  test("a stream that stands is told to its client before the first message", async () => {
    async function* silent(call: Call): AsyncGenerator<{ containerId: string }> {
      await once(call.signal, "abort");
      yield { containerId: "too late" };
    }
    await using served = await serve({ GetContainerEvents: silent });
    const stream = served.client.stream("GetContainerEvents", {});
    stream.on("error", () => undefined); // being cancelled is one
    await once(stream, "metadata");
    stream.cancel();
  });

  test("a client that does not read holds the source back, and one that goes away ends it", async () => {
    let produced = 0;
    const finished = Promise.withResolvers<void>();
    async function* endless(): AsyncGenerator<{ containerId: string }> {
      try {
        yield* countTo(1_000_000, (n) => {
          produced = n;
        });
      } finally {
        finished.resolve();
      }
    }
    await using served = await serve({ GetContainerEvents: endless });
    const { stream, breakConnection } = openRawCall(served.socket, "GetContainerEvents");
    await once(stream, "response");
    let before = -1;
    const hasStalled = (): boolean => {
      const isSame = produced === before;
      before = produced;
      return isSame;
    };
    await expect.poll(hasStalled).toBe(true);
    expect(produced).toBeLessThan(100);
    breakConnection();
    await finished.promise;
    await expect.poll(() => lineOf(served.lines, "GetContainerEvents")?.fields["code"]).toBe("Canceled");
  });

  test("an error in the middle comes after the messages before it", async () => {
    async function* broken(): AsyncGenerator<{ containerId: string }> {
      yield { containerId: "one" };
      throw new CriError(Code.DataLoss, "events were lost");
    }
    await using served = await serve({ GetContainerEvents: broken });
    const stream = served.client.stream("GetContainerEvents", {});
    const received: string[] = [];
    stream.on("data", (event: { containerId: string }) => received.push(event.containerId));
    const [error] = await once(stream, "error");
    expect(error).toMatchObject({ code: status.DATA_LOSS, details: "events were lost" });
    expect(received).toEqual(["one"]);
  });
});

describe("shutdown", () => {
  test("calls in flight may end, then the rooms are disposed, and the socket is gone", async () => {
    const release = Promise.withResolvers<void>();
    const began = Promise.withResolvers<void>();
    await using served = await serve({
      StopContainer: async () => {
        began.resolve();
        await release.promise;
        return {};
      },
    });
    const inFlight = served.client.unary("StopContainer", {});
    await began.promise;
    const stopped = served.daemon.stop();
    await expect
      .poll(async () => await lstat(served.socket).catch((error: Error) => error.message))
      .toContain("ENOENT");
    expect(served.disposed).toEqual([]);
    release.resolve();
    expect(await inFlight).toEqual({});
    await stopped;
    expect(served.disposed).toEqual(["rooms"]);
  });

  test("after the grace time the rest is aborted as Unavailable", async () => {
    const waiter = createWaiter();
    await using served = await serve({ PullImage: waiter.handler }, 50);
    const response = served.client.unary("PullImage", {});
    const failed = expect(response).rejects.toMatchObject({
      code: status.UNAVAILABLE,
      details: "Berth is shutting down",
    });
    await waiter.began;
    await served.daemon.stop();
    expect(await waiter.ended).toMatchObject({ code: Code.Unavailable });
    await failed;
    expect(served.disposed).toEqual(["rooms"]);
  });

  test("an open event stream does not use up the grace time", async () => {
    async function* quiet(call: Call): AsyncGenerator<{ containerId: string }> {
      yield { containerId: "hello" };
      await untilAborted(call);
    }
    await using served = await serve({ GetContainerEvents: quiet }, 60_000);
    const stream = served.client.stream("GetContainerEvents", {});
    await once(stream, "data");
    const failed = once(stream, "error");
    await served.daemon.stop();
    expect((await failed)[0]).toMatchObject({ code: status.UNAVAILABLE });
  });

  test("stopping twice is stopping once", async () => {
    await using served = await serve({});
    await Promise.all([served.daemon.stop(), served.daemon.stop()]);
    expect(served.disposed).toEqual(["rooms"]);
  });

  test("a room that does not open leaves neither socket nor server", async () => {
    await using scratch = await makeScratch();
    const socket = join(scratch.path, "berth.sock");
    const parts = { socket, privateDirectories: [], log: createLogBook().log };
    await expect(startDaemon({ ...parts, openRooms: () => Promise.reject(new Error("no crun")) })).rejects.toThrow(
      "no crun",
    );
    await expect(lstat(socket)).rejects.toThrow("ENOENT");
  });

  test("a live socket is refused before any room opens", async () => {
    await using served = await serve({});
    let opened = false;
    const parts = { socket: served.socket, privateDirectories: [], log: createLogBook().log };
    const openRooms = async (): Promise<never> => {
      opened = true;
      throw new Error("unexpected");
    };
    await expect(startDaemon({ ...parts, openRooms })).rejects.toThrow("another server is listening");
    expect(opened).toBe(false);
  });
});
