import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { getMachine, readable } from "./events.ts";
import { connectThroughRelay, type SeqpacketHandlers } from "./sockets.ts";

const seqpacket = 5;
const epipe = -32;
const packetBytes = 8193;
let directory: string;
let path: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-relay-"));
  path = join(directory, "attach");
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** The monitor's side: whoever is attached is written to, as conmon does it, but without waiting. */
interface FakeMonitor extends Disposable {
  readonly fd: number;
  /** Writes packets for as long as they are taken at once; their number. */
  flood(maxPackets: number): number;
  read(): Promise<Buffer>;
}

function isReady(fd: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watching = getMachine().watch(fd, readable, () => {
    watching.stop();
    resolve();
  });
  return promise;
}

async function attach(
  handlers: Partial<SeqpacketHandlers> = {},
): Promise<{ monitor: FakeMonitor; socket: Awaited<ReturnType<typeof connectThroughRelay>> }> {
  const { addon } = getMachine();
  const listener = addon.listenUnix(path, seqpacket);
  const socket = await connectThroughRelay(path, { message: () => undefined, closed: () => undefined, ...handlers });
  const fd = addon.accept(listener);
  addon.close(listener);
  const monitor: FakeMonitor = {
    fd,
    flood(maxPackets) {
      for (let count = 0; count < maxPackets; count++)
        if (addon.send(fd, Buffer.alloc(packetBytes, count)) < 0) return count;
      return maxPackets;
    },
    async read() {
      await isReady(fd);
      const packet = addon.read(fd, 65_536);
      if (typeof packet === "number") throw new Error(`read: ${packet}`);
      return packet;
    },
    [Symbol.dispose]: () => void addon.close(fd),
  };
  return { monitor, socket };
}

async function relaysOf(parent: number): Promise<readonly string[]> {
  const pids = (await readFile(`/proc/${parent}/task/${parent}/children`, "utf8")).split(" ").filter(Boolean);
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes("\0relay"));
}

async function expectNoRelay(): Promise<void> {
  await expect.poll(() => relaysOf(process.pid), { timeout: 5_000 }).toEqual([]);
}

test("packets keep their bounds and order both ways, and the end comes after the last", async () => {
  const packets: string[] = [];
  const end = Promise.withResolvers<unknown>();
  const { monitor, socket } = await attach({
    message: (packet) => packets.push(packet.toString()),
    closed: (error) => end.resolve(error),
  });
  for (const text of ["2a", "3bb", "2ccc"]) getMachine().addon.send(monitor.fd, Buffer.from(text));
  for (const text of ["one", "two"]) await socket.send(Buffer.from(text));
  expect(String(await monitor.read())).toBe("one");
  expect(String(await monitor.read())).toBe("two");
  monitor[Symbol.dispose]();
  await expect(end.promise).resolves.toBeUndefined();
  expect(packets).toEqual(["2a", "3bb", "2ccc"]);
  await expectNoRelay();
});

test("an end of sending reaches the monitor after what was sent, and output goes on", async () => {
  const later = Promise.withResolvers<string>();
  const { monitor, socket } = await attach({ message: (packet) => later.resolve(packet.toString()) });
  await socket.send(Buffer.from("last"));
  socket.endSending();
  expect(String(await monitor.read())).toBe("last");
  expect(await monitor.read()).toEqual(Buffer.alloc(0));
  getMachine().addon.send(monitor.fd, Buffer.from("2still there"));
  expect(await later.promise).toBe("2still there");
  socket.close();
  monitor[Symbol.dispose]();
  await expectNoRelay();
});

test("what was sent before close still arrives, and is followed by the end", async () => {
  const { monitor, socket } = await attach();
  for (let count = 0; count < 10; count++) await socket.send(Buffer.from(`packet ${count}`));
  socket.close();
  for (let count = 0; count < 10; count++) expect(String(await monitor.read())).toBe(`packet ${count}`);
  expect(await monitor.read()).toEqual(Buffer.alloc(0));
  monitor[Symbol.dispose]();
  await expectNoRelay();
});

test("a client that stops reading holds the monitor up for a second at most, then hears that it was dropped", async () => {
  let received = 0;
  const end = Promise.withResolvers<unknown>();
  const { monitor, socket } = await attach({
    message: (packet) => void (received += packet.length),
    closed: (error) => end.resolve(error),
  });
  socket.pause();
  let packets = 0;
  let longestWaitMs = 0;
  let lastAt = performance.now();
  for (let isGone = false; !isGone; ) {
    const count = monitor.flood(100);
    packets += count;
    if (count > 0) {
      longestWaitMs = Math.max(longestWaitMs, performance.now() - lastAt);
      lastAt = performance.now();
    }
    isGone = getMachine().addon.send(monitor.fd, Buffer.from("2")) === epipe;
    await sleep(5);
  }
  expect(performance.now() - lastAt).toBeLessThan(2_000); // until it was let go
  expect(longestWaitMs).toBeLessThan(500);
  expect(packets * packetBytes).toBeGreaterThan(4 * 1024 * 1024 - 100_000); // so much is a client's right
  socket.resume();
  await expect(end.promise).resolves.toMatchObject({ code: "ENOBUFS" });
  expect(received).toBeGreaterThan(0); // what had reached us by then is not lost
  monitor[Symbol.dispose]();
  await expectNoRelay();
});

test("a slow client that goes on taking loses nothing of 64 MiB", { timeout: 30_000 }, async () => {
  const total = 64 * 1024 * 1024;
  let received = 0;
  const { monitor, socket } = await attach({
    message(packet) {
      expect(packet.every((byte) => byte === packet[0])).toBe(true);
      received += packet.length;
      if (received % 50 === 0) {
        socket.pause();
        setTimeout(() => socket.resume(), 1);
      }
    },
  });
  let sent = 0;
  while (sent < total) {
    sent += monitor.flood(100) * packetBytes;
    await new Promise((next) => void setImmediate(next));
  }
  await expect.poll(() => received, { timeout: 10_000 }).toBe(sent);
  socket.close();
  monitor[Symbol.dispose]();
  await expectNoRelay();
});

test("a monitor that reads no input does not stop its output, and a client that leaves it is let go", async () => {
  let received = 0;
  const { monitor, socket } = await attach({ message: (packet) => void (received += packet.length) });
  const sending = Promise.allSettled(Array.from({ length: 200 }, () => socket.send(Buffer.alloc(8192))));
  let sent = 0;
  while (sent < 2_000) {
    sent += monitor.flood(100);
    await new Promise((next) => void setImmediate(next));
  }
  await expect.poll(() => received).toBe(sent * packetBytes);
  socket.close();
  expect((await sending).some(({ status }) => status === "rejected")).toBe(true);
  expect(monitor.flood(10)).toBe(10); // nobody hears it, and it is not held up
  monitor[Symbol.dispose]();
  await expectNoRelay();
});

test("connecting to nothing says so and starts nothing", async () => {
  const handlers = { message: () => undefined, closed: () => undefined };
  await expect(connectThroughRelay(path, handlers)).rejects.toMatchObject({ code: "ENOENT" });
  await expectNoRelay();
});
