import { once } from "node:events";
import { Readable } from "node:stream";
import { afterEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { createStreamingServer, type StreamingServer } from "./streaming-server.ts";
import { connectSpdy, createBackend, createFakeProcess, liveBytes, silentLog } from "./testing.ts";

const mebibyte = 1024 * 1024;
const totalBytes = 100 * mebibyte;
/** What a transfer may hold at any time: of both ends, which are here in one process, and with V8's own delay. */
const maxHeldBytes = 40 * mebibyte;
const request = { containerId: "c", cmd: ["x"], tty: false, stdin: true, stdout: true, stderr: false };
let stack = new AsyncDisposableStack();
afterEach(async () => {
  const used = stack;
  stack = new AsyncDisposableStack();
  await used.disposeAsync();
});

async function serve(process: ReturnType<typeof createFakeProcess>): Promise<StreamingServer> {
  return stack.use(
    await createStreamingServer({
      config: { address: "127.0.0.1", port: 0, idleTimeoutMs: 60_000, streamCreationTimeoutMs: 5000 },
      backend: createBackend({ exec: async () => process }),
      log: silentLog,
    }),
  );
}

/** A gauge that looks at what is held every few mebibytes that pass. */
function gauge(before: number): { passed(bytes: number): void; readonly bytes: number; peak(): Promise<number> } {
  const samples: Promise<number>[] = [];
  let bytes = 0;
  return {
    passed(count) {
      if (Math.floor((bytes + count) / (10 * mebibyte)) > Math.floor(bytes / (10 * mebibyte)))
        samples.push(liveBytes());
      bytes += count;
    },
    get bytes() {
      return bytes;
    },
    peak: async () => Math.max(...(await Promise.all(samples))) - before,
  };
}

function* source(): Generator<Buffer> {
  for (let sent = 0; sent < totalBytes; sent += mebibyte / 16) yield Buffer.alloc(mebibyte / 16);
}

test("100 MiB each way over SPDY are held in a few", { timeout: 60_000 }, async () => {
  const process = createFakeProcess();
  const server = await serve(process);
  const client = await connectSpdy(server.execUrl(request));
  await client.open({ streamtype: "error" });
  const stdin = await client.open({ streamtype: "stdin" });
  const stdout = await client.open({ streamtype: "stdout" });
  const held = gauge(await liveBytes());

  process.stdin.pipe(process.stdout);
  process.stdin.on("end", () => process.exit(0));
  const received = (async () => {
    for await (const chunk of stdout.output) held.passed((chunk as Buffer).length);
  })();
  for (const chunk of source()) await stdin.write(chunk);
  stdin.end();
  await received;
  expect(held.bytes).toBe(totalBytes);
  expect(await held.peak()).toBeLessThan(maxHeldBytes);
  client.close();
});

test("100 MiB each way over a WebSocket are held in a few", { timeout: 60_000 }, async () => {
  const process = createFakeProcess();
  const server = await serve(process);
  const socket = new WebSocket(server.execUrl(request).replace("http", "ws"), ["v5.channel.k8s.io"]);
  await once(socket, "open");
  const held = gauge(await liveBytes());

  process.stdin.pipe(process.stdout);
  process.stdin.on("end", () => process.exit(0));
  socket.on("message", (message: Buffer) => {
    if (message[0] === 1) held.passed(message.length - 1);
  });
  for (const chunk of source()) {
    await new Promise((resolve) => socket.send(Buffer.concat([Buffer.from([0]), chunk]), resolve));
  }
  socket.send(Buffer.from([255, 0]));
  await once(socket, "close");
  expect(held.bytes).toBe(totalBytes);
  expect(await held.peak()).toBeLessThan(maxHeldBytes);
});

test("an endless output to a client that reads nothing holds a few", async () => {
  const process = createFakeProcess();
  let produced = 0;
  const endless = new Readable({
    read() {
      produced += mebibyte / 16;
      this.push(Buffer.alloc(mebibyte / 16));
    },
  });
  const server = await serve({ ...process, stdout: endless as never });
  const client = await connectSpdy(server.execUrl({ ...request, stdin: false }));
  await client.open({ streamtype: "error" });
  const before = await liveBytes();
  await client.open({ streamtype: "stdout" }); // whose output nobody reads
  let last = -1;
  while (last !== produced) {
    last = produced;
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => void setImmediate(resolve));
  }
  expect(produced).toBeGreaterThan(0);
  expect((await liveBytes()) - before).toBeLessThan(maxHeldBytes);
  client.socket.destroy();
  endless.destroy();
});
