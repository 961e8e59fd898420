import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { duplexPair } from "node:stream";
import { expect, test } from "vitest";
import { createRandom } from "../../cri-api/testing.ts";
import { createSpdyConnection, defaultSpdyLimits } from "./spdy/connection.ts";
import { dictionaryId, headerDictionary } from "./spdy/dictionary.ts";
import {
  encodeDataHead,
  encodeGoaway,
  encodeHeadersFrame,
  encodePing,
  encodeReset,
  encodeSettings,
  encodeSynReply,
  encodeSynStream,
  encodeWindowUpdate,
} from "./spdy/frames.ts";
import { createInflater } from "./spdy/inflate.ts";
import { createStreamingServer } from "./streaming-server.ts";
import {
  connectSpdy,
  createBackend,
  createFakeProcess,
  createZlibHeaders,
  liveBytes,
  readAll,
  silentLog,
} from "./testing.ts";

/** How long each parser is fed at least, in milliseconds, and how much more it may then hold. */
const feedMs = 1200;
const leastRounds = 100;
/** Less than any timeout of the server, and more than a busy machine makes of a few milliseconds. */
const longestRoundMs = 4000;
const maxGrowthBytes = 12 * 1024 * 1024;
const seed = 20_260_401;

type Random = () => number;

function pick(random: Random, below: number): number {
  return Math.floor(random() * below);
}

/** A conversation a client might have, frame by frame. */
async function conversation(): Promise<Buffer[]> {
  const { compress } = createZlibHeaders();
  const header = async (type: string): Promise<Buffer> =>
    compress(
      new Map([
        ["streamtype", type],
        ["port", "80"],
      ]),
    );
  const data = (id: number, text: string, isFin = false): Buffer =>
    Buffer.concat([encodeDataHead(id, text.length, isFin), Buffer.from(text)]);
  return [
    encodeSettings([
      { id: 7, value: 65_536 },
      { id: 4, value: 100 },
    ]),
    encodeSynStream(1, await header("error")),
    encodeSynStream(3, await header("stdin")),
    data(3, "hello"),
    encodePing(1),
    encodeHeadersFrame(3, await header("more")),
    encodeWindowUpdate(3, 1000),
    encodeWindowUpdate(0, 1000),
    encodeSynStream(5, await header("stdout"), 1),
    encodeSynReply(2, await header("reply")),
    data(3, "x".repeat(3000), true),
    encodeReset(5, "CANCEL"),
    encodeSynStream(7, await header("resize"), 2),
    data(1, ""),
    encodeGoaway(7, "OK"),
  ];
}

/** Damages a conversation the ways wires and attackers do. */
function damage(random: Random, frames: readonly Buffer[]): Buffer {
  const chosen = frames.filter(() => random() < 0.9).map((frame) => Buffer.from(frame));
  for (const frame of chosen) {
    if (random() > 0.15) continue;
    const position = pick(random, Math.min(frame.length, random() < 0.5 ? 12 : frame.length));
    frame[position] = random() < 0.3 ? 0xff : pick(random, 256);
  }
  if (random() < 0.2)
    chosen.splice(pick(random, chosen.length), 0, Buffer.from(Array.from({ length: 40 }, () => pick(random, 256))));
  if (random() < 0.2) chosen.push(...chosen.slice(0, 3));
  const bytes = Buffer.concat(chosen);
  return random() < 0.2 ? bytes.subarray(0, pick(random, bytes.length)) : bytes;
}

async function feedSpdy(bytes: Buffer, random: Random): Promise<void> {
  const [near, far] = duplexPair();
  const connection = createSpdyConnection({
    transport: near,
    limits: { ...defaultSpdyLimits, maxStreams: 3 },
    touch: () => undefined,
    accept: () =>
      random() < 0.1
        ? undefined
        : ({ duplex }) => {
            if (random() < 0.7) duplex.pipe(duplex);
            else if (random() < 0.5) duplex.destroy();
          },
  });
  far.on("error", () => undefined);
  if (random() < 0.8) far.resume();
  for (let start = 0; start < bytes.length; ) {
    const end = start + 1 + pick(random, 2000);
    far.write(bytes.subarray(start, end));
    start = end;
  }
  await new Promise<void>((resolve) => void setImmediate(() => setImmediate(resolve)));
  far.destroy();
  near.destroy();
  await connection.closed;
}

/** Runs rounds for a while; each must be short, and all together must leave nothing behind. */
async function feed(round: (random: Random) => Promise<void>): Promise<void> {
  const random = createRandom(seed);
  for (let warmUp = 0; warmUp < 50; warmUp++) await round(random);
  const before = await liveBytes();
  const end = performance.now() + feedMs;
  for (let rounds = 0; rounds < leastRounds || performance.now() < end; rounds++) {
    const start = performance.now();
    await round(random);
    expect(performance.now() - start).toBeLessThan(longestRoundMs);
  }
  expect((await liveBytes()) - before).toBeLessThan(maxGrowthBytes);
}

test("damaged SPDY neither crashes, hangs nor grows the connection", async () => {
  const frames = await conversation();
  await feed((random) => feedSpdy(damage(random, frames), random));
});

test("damaged header blocks inflate to no more than the limit, or fail as such", async () => {
  const valid = await createZlibHeaders().compress(
    new Map([
      ["streamtype", "stdin"],
      ["long", "abc".repeat(300)],
    ]),
  );
  await feed(async (random) => {
    const bytes = Buffer.from(valid);
    for (let flips = pick(random, 6); flips >= 0; flips--)
      bytes[6 + pick(random, bytes.length - 6)] = pick(random, 256);
    const inflater = createInflater(headerDictionary(), dictionaryId, 4096);
    try {
      for (const block of [bytes, bytes.subarray(6)]) expect(inflater.inflate(block).length).toBeLessThanOrEqual(4096);
    } catch (thrown) {
      expect(thrown).toMatchObject({ name: "SpdyError" });
    }
  });
});

/** A client's frame: masked, with whatever opcode, flags and length are asked for. */
function webSocketFrame(random: Random, payload: Buffer): Buffer {
  const opcode = random() < 0.8 ? [1, 2, 2, 2, 9][pick(random, 5)] : pick(random, 16);
  const flags = random() < 0.9 ? 0x80 : pick(random, 16) << 4;
  const mask = Buffer.from(Array.from({ length: 4 }, () => pick(random, 256)));
  const length = random() < 0.9 ? payload.length : pick(random, 126);
  const maskBit = random() < 0.95 ? 0x80 : 0;
  return Buffer.concat([
    Buffer.from([flags | (opcode ?? 2), maskBit | Math.min(length, 125)]),
    mask,
    payload.map((byte, index) => byte ^ (mask[index % 4] ?? 0)),
  ]);
}

async function openRaw(url: URL, lines: readonly string[]): Promise<Socket> {
  const socket = connect({ host: url.hostname, port: Number(url.port) });
  socket.on("error", () => undefined);
  await once(socket, "connect");
  socket.write(
    [`GET ${url.pathname} HTTP/1.1`, `Host: ${url.host}`, "Connection: Upgrade", ...lines, "", ""].join("\r\n"),
  );
  return socket;
}

const webSocketProtocols = [
  "v5.channel.k8s.io",
  "v4.base64.channel.k8s.io",
  "channel.k8s.io",
  "SPDY/3.1+portforward.k8s.io",
];

test("damaged WebSocket frames neither crash, hang nor grow the server, and it still serves", async () => {
  const backend = createBackend({
    exec: async () => createFakeProcess(),
    portForward: async () => createFakeProcess().stdout,
  });
  const config = { address: "127.0.0.1", port: 0, idleTimeoutMs: 5000, streamCreationTimeoutMs: 5000 };
  await using server = await createStreamingServer({ config, backend, log: silentLog });
  const request = { containerId: "c", cmd: ["x"], tty: true, stdin: true, stdout: true, stderr: false };
  const frames = await conversation();

  await feed(async (random) => {
    const protocol = webSocketProtocols[pick(random, webSocketProtocols.length)] ?? "";
    const url = protocol.startsWith("SPDY")
      ? server.portForwardUrl({ podSandboxId: "p", port: [] })
      : server.execUrl(request);
    const socket = await openRaw(new URL(url), [
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
      `Sec-WebSocket-Protocol: ${protocol}`,
    ]);
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(String(answer)).toContain("101 Switching Protocols");
    socket.resume();
    for (let count = pick(random, 12); count >= 0; count--) {
      const body = protocol.startsWith("SPDY")
        ? damage(random, frames).subarray(0, 120)
        : Buffer.from([
            random() < 0.8 ? pick(random, 5) : 255,
            ...Array.from({ length: pick(random, 100) }, () => pick(random, 256)),
          ]);
      socket.write(webSocketFrame(random, body));
    }
    await new Promise<void>((resolve) => void setImmediate(() => setImmediate(resolve)));
    if (random() < 0.5) socket.resetAndDestroy();
    else socket.destroy();
  });

  const process = createFakeProcess();
  const good = await createStreamingServer({
    config,
    backend: createBackend({ exec: async () => process }),
    log: silentLog,
  });
  const client = await connectSpdy(good.execUrl({ ...request, tty: false, stdin: false }));
  await client.open({ streamtype: "error" });
  const stdout = await client.open({ streamtype: "stdout" });
  process.stdout.end("alive");
  process.exit(0);
  expect(String(await readAll(stdout.output))).toBe("alive");
  client.close();
  await good[Symbol.asyncDispose]();
});
