import { once } from "node:events";
import { createServer, connect, type AddressInfo, type Server } from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Code, CriError } from "../../cri-api/index.ts";
import type { StreamingBackend } from "./backend.ts";
import { createStreamingServer, type StreamingConfig, type StreamingServer } from "./streaming-server.ts";
import {
  type ClientStream,
  connectSpdy,
  createBackend,
  createFakeProcess,
  connectTunnel,
  readAll,
  silentLog,
  speakSpdy,
  type SpdyClient,
  UpgradeRefused,
} from "./testing.ts";
import { createTunnel } from "./websocket-tunnel.ts";

const config: StreamingConfig = { address: "127.0.0.1", port: 0, idleTimeoutMs: 60_000, streamCreationTimeoutMs: 5000 };
const execRequest = { containerId: "c", cmd: ["x"], tty: false, stdin: false, stdout: true, stderr: false };
let stack = new AsyncDisposableStack();
afterEach(async () => {
  const used = stack;
  stack = new AsyncDisposableStack();
  await used.disposeAsync();
});

async function serve(
  backend: Partial<StreamingBackend>,
  changes: Partial<StreamingConfig> = {},
): Promise<StreamingServer> {
  return stack.use(
    await createStreamingServer({ config: { ...config, ...changes }, backend: createBackend(backend), log: silentLog }),
  );
}

function closed(socket: Duplex): Promise<void> {
  return new Promise((resolve) => void socket.once("close", () => resolve()));
}

async function openAll(client: SpdyClient, types: readonly string[]): Promise<Record<string, ClientStream>> {
  const streams: Record<string, ClientStream> = {};
  for (const type of types) streams[type] = await client.open({ streamtype: type });
  return streams;
}

describe("URLs", () => {
  test("carry a token of at least 128 bits under the path of their kind", async () => {
    const server = await serve({});
    expect(server.execUrl(execRequest)).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{22,}$/);
    expect(server.attachUrl(execRequest)).toMatch(/\/attach\/[\w-]{22,}$/);
    expect(server.portForwardUrl({ podSandboxId: "p", port: [] })).toMatch(/\/portforward\/[\w-]{22,}$/);
  });

  test.each([
    [{ ...execRequest, containerId: "" }, "missing required container_id"],
    [{ ...execRequest, tty: true, stderr: true }, "tty and stderr cannot both be true"],
    [{ ...execRequest, stdout: false }, "one of stdin, stdout, or stderr must be set"],
  ])("are refused for a request no stream can serve", async (request, message) => {
    const server = await serve({});
    expect(() => server.execUrl(request)).toThrow(new CriError(Code.InvalidArgument, message));
    expect(() => server.attachUrl(request)).toThrow(message);
  });

  test("are refused without a pod sandbox and for a port out of range", async () => {
    const server = await serve({});
    expect(() => server.portForwardUrl({ podSandboxId: "", port: [] })).toThrow("pod_sandbox_id");
    expect(() => server.portForwardUrl({ podSandboxId: "p", port: [70_000] })).toThrow("70000");
  });

  test("work once, and only under the path they were issued for", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const url = server.execUrl(execRequest);
    const client = await connectSpdy(url);
    await expect(connectSpdy(url)).rejects.toMatchObject({ status: 404 });
    client.socket.destroy();
    await expect(connectSpdy(server.execUrl(execRequest).replace("/exec/", "/attach/"))).rejects.toThrow(
      UpgradeRefused,
    );
    await expect(connectSpdy(`${new URL(url).origin}/exec/${"x".repeat(32)}`)).rejects.toMatchObject({ status: 404 });
  });

  test("are told to come again while too many streams are open", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process }, { maxSessions: 1 });
    const first = await connectSpdy(server.execUrl(execRequest));
    const url = server.execUrl(execRequest);
    await expect(connectSpdy(url)).rejects.toMatchObject({ status: 429, headers: { "retry-after": "60" } });
    first.socket.destroy();
    let second: SpdyClient | undefined;
    while (second === undefined) second = await connectSpdy(url).catch(() => undefined);
    second.socket.destroy();
  });

  test("answer a request that is no upgrade, or to a protocol we lack, with an error", async () => {
    const server = await serve({});
    const plain = await fetch(server.execUrl(execRequest));
    expect(plain.status).toBe(400);
    await plain.text();
    await expect(connectSpdy(server.execUrl(execRequest), ["v9.channel.k8s.io"])).rejects.toMatchObject({
      status: 403,
      headers: { "x-accepted-stream-protocol-versions": expect.stringContaining("v4.channel.k8s.io") },
    });
  });
});

describe("attach", () => {
  const attachRequest = { containerId: "c", tty: false, stdin: true, stdout: true, stderr: false };

  test("ends well when there is nothing more to attach to", async () => {
    const process = createFakeProcess();
    const server = await serve({ attach: async () => process });
    const client = await connectSpdy(server.attachUrl(attachRequest));
    const streams = await openAll(client, ["error", "stdin", "stdout"]);
    process.exit(undefined);
    process.stdout.end("bye");
    expect(String(await readAll(streams["stdout"]!.output))).toBe("bye");
    expect(JSON.parse(String(await readAll(streams["error"]!.output)))).toMatchObject({ status: "Success" });
  });

  test("drops a client that does not read, so that its container goes on", async () => {
    const process = createFakeProcess();
    const server = await serve(
      { attach: async () => process },
      { attachBuffer: { maxBufferedBytes: 4096, maxStallMs: 50 } },
    );
    const client = await connectSpdy(server.attachUrl(attachRequest));
    await openAll(client, ["error", "stdin", "stdout"]); // nobody reads what comes
    const flood = setInterval(() => process.stdout.write(Buffer.alloc(1024 * 1024)), 1);
    await process.disposed;
    clearInterval(flood);
    client.socket.destroy();
  });
});

describe("exec over SPDY", () => {
  test.each([
    [
      "v5.channel.k8s.io",
      7,
      expect.objectContaining({
        reason: "NonZeroExitCode",
        details: { causes: [{ reason: "ExitCode", message: "7" }] },
      }),
    ],
    ["v4.channel.k8s.io", 0, expect.objectContaining({ status: "Success" })],
  ])("sends output and a status as JSON with %s", async (protocol, exitCode, status) => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const client = await connectSpdy(server.execUrl({ ...execRequest, stderr: true }), [protocol]);
    expect(client.protocol).toBe(protocol);
    const streams = await openAll(client, ["error", "stdout", "stderr"]);
    process.stdout.end("out");
    process.stderr.end("err");
    process.exit(exitCode);
    expect(String(await readAll(streams["stdout"]!.output))).toBe("out");
    expect(String(await readAll(streams["stderr"]!.output))).toBe("err");
    expect(JSON.parse(String(await readAll(streams["error"]!.output)))).toEqual(status);
    await client.waitFor("GOAWAY");
    client.close();
    await process.disposed;
  });

  test.each(["channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"])(
    "sends failures as text with %s",
    async (protocol) => {
      const process = createFakeProcess();
      const server = await serve({ exec: async () => process });
      const client = await connectSpdy(server.execUrl(execRequest), [protocol]);
      const streams = await openAll(client, ["error", "stdout"]);
      process.stdout.end();
      process.exit(3);
      expect(String(await readAll(streams["error"]!.output))).toBe(
        "command terminated with non-zero exit code: exit status 3",
      );
    },
  );

  test("passes stdin on, its end too, and resizes the terminal", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const client = await connectSpdy(server.execUrl({ ...execRequest, stdin: true, tty: true }));
    const streams = await openAll(client, ["error", "stdin", "stdout", "resize"]);
    await streams["resize"]!.write('{"Width":80,"Height":24}\n{"Wid');
    await streams["resize"]!.write('th":132,"Height":50}\nnonsense}{"Width":-1,"Height":3}');
    await streams["stdin"]!.write("hello");
    await streams["stdin"]!.write(" world", true);
    expect(String(await readAll(process.stdin))).toBe("hello world");
    expect(process.sizes).toEqual([
      { width: 80, height: 24 },
      { width: 132, height: 50 },
    ]);
    process.exit(0);
    process.stdout.end("bye");
    expect(String(await readAll(streams["stdout"]!.output))).toBe("bye");
  });

  test("tells why a command could not start", async () => {
    const server = await serve({
      exec: async () => {
        throw new CriError(Code.NotFound, 'container "c" not found');
      },
    });
    const client = await connectSpdy(server.execUrl(execRequest));
    const streams = await openAll(client, ["error", "stdout"]);
    const status = JSON.parse(String(await readAll(streams["error"]!.output)));
    expect(status).toMatchObject({
      status: "Failure",
      reason: "InternalError",
      message: expect.stringContaining('container "c" not found'),
    });
  });

  test("ends when the process has exited although its output stays open", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const client = await connectSpdy(server.execUrl(execRequest));
    const streams = await openAll(client, ["error", "stdout"]);
    process.stdout.write("before ");
    process.exit(0);
    process.stdout.write("and after");
    expect(String(await readAll(streams["stdout"]!.output))).toBe("before and after");
  });

  test("notices a client that disappears, and closes the process's streams", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const client = await connectSpdy(server.execUrl(execRequest));
    await openAll(client, ["error", "stdout"]);
    client.socket.destroy();
    await process.disposed;
  });

  test("gives up on a client that does not open its streams", async () => {
    const server = await serve({}, { streamCreationTimeoutMs: 500 });
    const client = await connectSpdy(server.execUrl(execRequest));
    await client.open({ streamtype: "error" });
    await closed(client.socket);
  });

  test("closes a connection on which nothing moves, whatever it pings", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process }, { idleTimeoutMs: 500 });
    const client = await connectSpdy(server.execUrl(execRequest));
    await openAll(client, ["error", "stdout"]);
    const pings = setInterval(() => client.ping(1), 20);
    await closed(client.socket);
    clearInterval(pings);
    await process.disposed;
    expect(client.frames.some(({ type }) => type === "PING")).toBe(true);
  });

  test("refuses a stream of an unknown type and a second one of a known type", async () => {
    const server = await serve({ exec: async () => createFakeProcess() });
    const client = await connectSpdy(server.execUrl(execRequest));
    await client.open({ streamtype: "error" });
    await expect(client.open({ streamtype: "error" })).rejects.toThrow("refused: 3");
    await expect(client.open({ streamtype: "telepathy" })).rejects.toThrow("refused: 3");
  });

  test("breaks streams off when the server is closed", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const client = await connectSpdy(server.execUrl(execRequest));
    await openAll(client, ["error", "stdout"]);
    await server[Symbol.asyncDispose]();
    await process.disposed;
    await expect(connectSpdy(server.execUrl(execRequest))).rejects.toThrow("ECONNREFUSED");
  });
});

async function connectWebSocket(
  url: string,
  protocols: readonly string[],
): Promise<{ socket: WebSocket; messages: Buffer[] }> {
  const socket = new WebSocket(url.replace("http", "ws"), [...protocols]);
  const messages: Buffer[] = [];
  socket.on("message", (data: Buffer) => messages.push(data));
  await once(socket, "open");
  return { socket, messages };
}

function channel(messages: readonly Buffer[], number: number): Buffer {
  return Buffer.concat(messages.filter(([first]) => first === number).map((message) => message.subarray(1)));
}

describe("exec over WebSocket", () => {
  test("carries streams in channels, takes the close signal, and says goodbye normally", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const { socket, messages } = await connectWebSocket(server.execUrl({ ...execRequest, stdin: true, stderr: true }), [
      "v5.channel.k8s.io",
    ]);
    expect(socket.protocol).toBe("v5.channel.k8s.io");
    socket.send(Buffer.from("\u0000hello"));
    socket.send(Buffer.from([4, ...Buffer.from('{"Width":80,"Height":24}')]));
    socket.send(Buffer.from([255, 0]));
    expect(String(await readAll(process.stdin))).toBe("hello");
    expect(process.sizes).toEqual([{ width: 80, height: 24 }]);
    process.stdout.end("out");
    process.stderr.end("err");
    process.exit(2);
    const [code] = await once(socket, "close");
    expect(code).toBe(1000);
    expect(messages[0]).toEqual(Buffer.from([1]));
    expect(String(channel(messages, 1))).toBe("out");
    expect(String(channel(messages, 2))).toBe("err");
    expect(JSON.parse(String(channel(messages, 3)))).toMatchObject({ reason: "NonZeroExitCode" });
  });

  test("speaks base64 in text messages", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const { socket, messages } = await connectWebSocket(server.execUrl({ ...execRequest, stdin: true }), [
      "base64.channel.k8s.io",
    ]);
    socket.send(`0${Buffer.from("hello").toString("base64")}`);
    expect(String((await once(process.stdin, "data"))[0])).toBe("hello");
    process.stdout.end("out");
    process.exit(1);
    await once(socket, "close");
    const decoded = messages
      .filter(([first]) => first === 0x31)
      .map((message) => Buffer.from(String(message.subarray(1)), "base64"));
    expect(String(Buffer.concat(decoded))).toBe("out");
    expect(String(messages.at(-1))).toBe(
      `3${Buffer.from("command terminated with non-zero exit code: exit status 1").toString("base64")}`,
    );
  });

  test("takes no close signal before v5", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const { socket } = await connectWebSocket(server.execUrl({ ...execRequest, stdin: true }), ["v4.channel.k8s.io"]);
    socket.send(Buffer.from([255, 0]));
    socket.send(Buffer.from("\u0000still open"));
    expect(String((await once(process.stdin, "data"))[0])).toBe("still open");
  });

  test("refuses a protocol it lacks", async () => {
    const server = await serve({});
    const socket = new WebSocket(server.execUrl(execRequest).replace("http", "ws"), ["v9.channel.k8s.io"]);
    const [error] = await once(socket, "error");
    expect(String(error)).toContain("403");
  });

  test("notices a client that disappears", async () => {
    const process = createFakeProcess();
    const server = await serve({ exec: async () => process });
    const { socket } = await connectWebSocket(server.execUrl(execRequest), ["v5.channel.k8s.io"]);
    socket.terminate();
    await process.disposed;
  });
});

async function echoServer(): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  stack.defer(() => void server.close());
  return (server.address() as AddressInfo).port;
}

function toPort(port: number): Partial<StreamingBackend> {
  return {
    async portForward(_call, request) {
      const socket = connect({
        host: "127.0.0.1",
        port: request.port === 1 ? port : request.port,
        allowHalfOpen: true,
      });
      await once(socket, "connect");
      return socket;
    },
  };
}

describe("port-forward", () => {
  test("carries many connections at once over SPDY, each with its own end", async () => {
    const server = await serve(toPort(await echoServer()));
    const client = await connectSpdy(server.portForwardUrl({ podSandboxId: "p", port: [] }), ["portforward.k8s.io"]);
    const echoes = Array.from({ length: 40 }, async (_, index) => {
      const headers = { port: "1", requestid: String(index) };
      const error = await client.open({ ...headers, streamtype: "error" });
      error.end();
      const data = await client.open({ ...headers, streamtype: "data" });
      await data.write(`message ${index}`, true);
      expect(String(await readAll(data.output))).toBe(`message ${index}`);
      expect(await readAll(error.output)).toHaveLength(0);
    });
    await Promise.all(echoes);
    client.close();
  });

  test("tells on the error stream why it could not connect, and goes on", async () => {
    const server = await serve(toPort(await echoServer()));
    const client = await connectSpdy(server.portForwardUrl({ podSandboxId: "p", port: [] }), ["portforward.k8s.io"]);
    const error = await client.open({ streamtype: "error", port: "2" });
    const data = await client.open({ streamtype: "data", port: "2" });
    await data.write("lost");
    expect(String(await readAll(error.output))).toMatch(/error forwarding port 2 to pod sandbox "p": .*ECONNREFUSED/);
    expect(await readAll(data.output)).toHaveLength(0);
    const again = await client.open({ streamtype: "error", port: "1" });
    const echo = await client.open({ streamtype: "data", port: "1" });
    await echo.write("found", true);
    expect(String(await readAll(echo.output))).toBe("found");
    expect(await readAll(again.output)).toHaveLength(0);
  });

  test.each([{}, { port: "0" }, { port: "70000" }, { port: "1" }, { port: "1", streamtype: "gossip" }])(
    "refuses a stream with headers %o",
    async (headers) => {
      const server = await serve({});
      const client = await connectSpdy(server.portForwardUrl({ podSandboxId: "p", port: [] }), ["portforward.k8s.io"]);
      await expect(client.open(headers)).rejects.toThrow("refused: 3");
    },
  );

  test("hangs up on the pod when the client resets its stream", async () => {
    const gone = Promise.withResolvers<void>();
    const target = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("close", () => gone.resolve());
      socket.resume();
    });
    target.listen(0, "127.0.0.1");
    await once(target, "listening");
    stack.defer(() => void target.close());
    const server = await serve(toPort((target.address() as AddressInfo).port));
    const client = await connectSpdy(server.portForwardUrl({ podSandboxId: "p", port: [] }), ["portforward.k8s.io"]);
    await client.open({ streamtype: "error", port: "1" });
    const data = await client.open({ streamtype: "data", port: "1" });
    await data.write("x");
    data.reset();
    await gone.promise;
  });

  test("carries SPDY in the messages of a WebSocket", async () => {
    const server = await serve(toPort(await echoServer()));
    const { socket, protocol } = await connectTunnel(server.portForwardUrl({ podSandboxId: "p", port: [] }));
    expect(protocol).toBe("SPDY/3.1+portforward.k8s.io");
    const client = speakSpdy(createTunnel(socket), Buffer.alloc(0), false);
    const error = await client.open({ streamtype: "error", port: "1" });
    const data = await client.open({ streamtype: "data", port: "1" });
    const sent = Buffer.alloc(300_000, "berth");
    void data.write(sent, true);
    expect((await readAll(data.output)).equals(sent)).toBe(true);
    expect(await readAll(error.output)).toHaveLength(0);
    client.close();
    const [code] = await once(socket, "close");
    expect(code).toBe(1000);
  });

  test("carries ports in channels of a WebSocket", async () => {
    const server = await serve(toPort(await echoServer()));
    const { socket, messages } = await connectWebSocket(server.portForwardUrl({ podSandboxId: "p", port: [1] }), [
      "v4.channel.k8s.io",
    ]);
    socket.send(Buffer.from("\u0000ping"));
    while (channel(messages, 0).length < 6) await once(socket, "message");
    expect(channel(messages, 0)).toEqual(Buffer.from("\u0001\u0000ping"));
    expect(channel(messages, 1)).toEqual(Buffer.from([1, 0]));
    socket.close();
    await once(socket, "close");
  });
});
