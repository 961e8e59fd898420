import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import { describe, expect, test } from "vitest";
import { type ClientStream, createZlibHeaders, readAll, type SpdyClient, speakSpdy } from "../testing.ts";
import { createSpdyConnection, defaultSpdyLimits, type SpdyConnection, type SpdyLimits } from "./connection.ts";
import { encodeDataHead, encodePing, encodeSettings, encodeSynStream, encodeWindowUpdate } from "./frames.ts";
import type { SpdyStream } from "./stream.ts";

interface Rig {
  readonly client: SpdyClient;
  readonly far: Duplex;
  readonly near: Duplex;
  readonly connection: SpdyConnection;
  readonly streams: SpdyStream[];
  readonly touches: { count: number };
}

function rig(limits: Partial<SpdyLimits> = {}, keepsWindows = false): Rig {
  const [near, far] = duplexPair();
  const streams: SpdyStream[] = [];
  const touches = { count: 0 };
  const connection = createSpdyConnection({
    transport: near,
    limits: { ...defaultSpdyLimits, ...limits },
    touch: () => void touches.count++,
    accept: () => (stream) => void streams.push(stream),
  });
  return { client: speakSpdy(far, Buffer.alloc(0), keepsWindows), far, near, connection, streams, touches };
}

async function openOne(rigged: Rig): Promise<{ client: ClientStream; server: SpdyStream }> {
  const client = await rigged.client.open({ streamtype: "data" });
  return { client, server: rigged.streams.at(-1)! };
}

function turns(count: number): Promise<void> {
  return new Promise((resolve) => {
    const turn = (left: number): void => void (left === 0 ? resolve() : setImmediate(() => turn(left - 1)));
    turn(count);
  });
}

/** Writes until the stream takes no more, and tells how much that was. */
async function fill(stream: Duplex): Promise<number> {
  let written = 0;
  for (let round = 0; round < 100; round++) {
    while (stream.write(Buffer.alloc(4096))) written += 4096;
    await turns(5);
    if (stream.writableNeedDrain) return written;
  }
  return written;
}

describe("a stream", () => {
  test("has its headers, carries bytes both ways and half-closes each way", async () => {
    const rigged = rig();
    const { client, server } = await openOne(rigged);
    expect(server.headers).toEqual(new Map([["streamtype", "data"]]));
    await client.write("question", true);
    expect(String(await readAll(server.duplex))).toBe("question");
    server.duplex.end("answer");
    expect(String(await readAll(client.output))).toBe("answer");
    await turns(3);
    expect(server.duplex.destroyed).toBe(true);
    expect(rigged.client.frames.some(({ type }) => type === "RST_STREAM")).toBe(false);
  });

  test("is reset on the wire when it is destroyed, and destroyed when the peer resets it", async () => {
    const rigged = rig();
    const first = await openOne(rigged);
    first.server.duplex.destroy();
    expect(await rigged.client.waitFor("RST_STREAM")).toMatchObject({ streamId: first.client.id, status: 5 });
    const second = await openOne(rigged);
    second.client.reset();
    await expect(readAll(second.server.duplex)).rejects.toThrow("reset by the peer");
  });

  test("fails when the connection goes", async () => {
    const rigged = rig();
    const { server } = await openOne(rigged);
    rigged.far.destroy();
    await expect(readAll(server.duplex)).rejects.toThrow();
    await rigged.connection.closed;
  });
});

describe("back-pressure", () => {
  test("stops a writer when the peer stops reading", async () => {
    const rigged = rig();
    const { server } = await openOne(rigged);
    rigged.far.pause();
    expect(await fill(server.duplex)).toBeLessThan(512 * 1024);
    expect(server.duplex.writableNeedDrain).toBe(true);
    rigged.far.resume();
    await once(server.duplex, "drain");
  });

  test("stops reading from the peer while a stream's reader is slow, and goes on after", async () => {
    const rigged = rig({ maxBufferedBytes: 100_000 });
    const { client, server } = await openOne(rigged);
    const sent = Buffer.alloc(1_000_000, "x");
    const done = client.write(sent, true);
    await turns(50);
    expect(rigged.near.isPaused()).toBe(true);
    expect((await readAll(server.duplex)).length).toBe(sent.length);
    await done;
    expect(rigged.near.isPaused()).toBe(false);
  });

  test("counts pieces of one byte by what they cost", async () => {
    const rigged = rig({ maxBufferedBytes: 100_000 });
    await openOne(rigged);
    const frame = Buffer.concat([encodeDataHead(1, 1, false), Buffer.from("x")]);
    rigged.far.write(Buffer.concat(Array.from({ length: 1000 }, () => frame)));
    await turns(5);
    expect(rigged.near.isPaused()).toBe(true);
  });

  test("is lifted when the stream that held it is destroyed", async () => {
    const rigged = rig({ maxBufferedBytes: 100_000 });
    const { client, server } = await openOne(rigged);
    void client.write(Buffer.alloc(200_000));
    await turns(20);
    expect(rigged.near.isPaused()).toBe(true);
    server.duplex.destroy();
    expect(rigged.near.isPaused()).toBe(false);
  });

  test("stops reading from a peer that does not take our answers", async () => {
    const rigged = rig({ maxUnsentControlBytes: 1000 });
    rigged.far.pause();
    const pings = Buffer.concat(Array.from({ length: 500 }, () => encodePing(1)));
    for (let round = 0; round < 100; round++) rigged.far.write(pings);
    await turns(20);
    expect(rigged.near.isPaused()).toBe(true);
    expect(rigged.near.writableLength).toBeLessThan(200_000);
  });
});

describe("windows", () => {
  test("bind us once the peer keeps them, and let everything through", async () => {
    const rigged = rig({}, true);
    const { client, server } = await openOne(rigged);
    const sent = Buffer.alloc(3_000_000, "y");
    server.duplex.end(sent);
    expect((await readAll(client.output)).equals(sent)).toBe(true);
  });

  test("of a peer that said so are not overrun", async () => {
    const rigged = rig();
    rigged.far.write(encodeSettings([{ id: 7, value: 10_000 }]));
    const { client, server } = await openOne(rigged);
    server.duplex.end(Buffer.alloc(50_000));
    await turns(20);
    expect(client.output.readableLength).toBe(10_000);
    rigged.far.write(encodeWindowUpdate(client.id, 5000));
    await turns(20);
    expect(client.output.readableLength).toBe(15_000);
    rigged.far.write(encodeSettings([{ id: 7, value: 50_000 }]));
    expect((await readAll(client.output)).length).toBe(50_000);
  });

  test("of ours grow as data is read, for the stream and the session", async () => {
    const rigged = rig();
    const { client, server } = await openOne(rigged);
    const reading = readAll(server.duplex);
    await client.write(Buffer.alloc(200_000), true);
    await reading;
    const updates = rigged.client.frames.filter((frame) => frame.type === "WINDOW_UPDATE");
    for (const streamId of [0, client.id]) {
      const bytes = updates
        .filter((update) => update.streamId === streamId)
        .reduce((sum, { deltaBytes }) => sum + deltaBytes, 0);
      expect(bytes).toBeGreaterThan(200_000 - 64 * 1024);
    }
  });

  test("that overflow reset their stream", async () => {
    const rigged = rig();
    const { client } = await openOne(rigged);
    rigged.far.write(encodeWindowUpdate(client.id, 0x7fff_ffff));
    expect(await rigged.client.waitFor("RST_STREAM")).toMatchObject({ streamId: client.id, status: 7 });
  });
});

describe("the connection", () => {
  test("answers pings with odd numbers only, and does not count them as use", async () => {
    const rigged = rig();
    rigged.client.ping(2);
    rigged.client.ping(7);
    expect(await rigged.client.waitFor("PING")).toEqual({ type: "PING", id: 7 });
    expect(rigged.touches.count).toBe(0);
  });

  test("says GOAWAY with the last stream it took, then closes", async () => {
    const rigged = rig();
    await openOne(rigged);
    await openOne(rigged);
    const ended = once(rigged.far, "end");
    rigged.connection.close();
    expect(await rigged.client.waitFor("GOAWAY")).toEqual({ type: "GOAWAY", lastStreamId: 3, status: 0 });
    await ended;
    rigged.far.destroy();
    expect(await rigged.connection.closed).toBeUndefined();
  });

  test("refuses streams beyond the limit and goes on", async () => {
    const rigged = rig({ maxStreams: 2 });
    const { server } = await openOne(rigged);
    await openOne(rigged);
    await expect(openOne(rigged)).rejects.toThrow("refused: 3");
    server.duplex.destroy();
    await openOne(rigged);
  });

  test("ignores what comes late for a stream that is over", async () => {
    const rigged = rig();
    const { client, server } = await openOne(rigged);
    server.duplex.destroy();
    await client.write("late");
    client.end();
    client.reset();
    await openOne(rigged);
  });

  test("probes the peer only while it does not read from it", async () => {
    const rigged = rig({ maxBufferedBytes: 1000 });
    rigged.connection.probe();
    const { client } = await openOne(rigged);
    expect(rigged.client.frames.some(({ type }) => type === "PING")).toBe(false);
    void client.write(Buffer.alloc(5000));
    await turns(5);
    rigged.connection.probe();
    expect(await rigged.client.waitFor("PING")).toEqual({ type: "PING", id: 2 });
  });

  test.each([
    ["an even stream id", async () => encodeSynStream(2, await createZlibHeaders().compress(new Map()))],
    [
      "a stream id used before",
      async () => {
        const { compress } = createZlibHeaders();
        return Buffer.concat([
          encodeSynStream(3, await compress(new Map())),
          encodeSynStream(3, await compress(new Map())),
        ]);
      },
    ],
    ["data for a stream never opened", async () => encodeDataHead(9, 0, false)],
    ["a header block that is none", async () => encodeSynStream(1, Buffer.from("nonsense"))],
    ["an initial window too large", async () => encodeSettings([{ id: 7, value: 0xffff_ffff }])],
    ["a session window that overflows", async () => encodeWindowUpdate(0, 0x7fff_ffff)],
    ["bytes of another protocol", async () => Buffer.from("\u00ff\u00ffGET / HTTP/1.1\r\n\r\n", "latin1")],
  ])("is closed with GOAWAY on %s", async (_name, bytes) => {
    const rigged = rig();
    rigged.far.write(await bytes());
    expect(await rigged.connection.closed).toMatchObject({ name: "SpdyError" });
  });
});
