import { closeSync, fstatSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { getMachine, readable } from "./events.ts";
import { connectSeqpacket, openConsoleSocket, recvFds, sendDatagram, sendFds, setWindowSize } from "./sockets.ts";

const seqpacket = 5;
const stream = 1;
const datagram = 2;
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-sockets-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** A packet server for one client: what conmon's attach socket is. */
function serve(path: string): { readonly accepted: Promise<number>; close: () => void } {
  const { addon, watch } = getMachine();
  const listener = addon.listenUnix(path, seqpacket);
  expect(listener).toBeGreaterThan(0);
  const { promise, resolve } = Promise.withResolvers<number>();
  const watching = watch(listener, readable, () => resolve(addon.accept(listener)));
  return {
    accepted: promise,
    close: () => {
      watching.stop();
      addon.close(listener);
    },
  };
}

test("packets keep their bounds both ways, and the end is told once", async () => {
  const { addon } = getMachine();
  const server = serve(join(directory, "attach"));
  const packets: string[] = [];
  const end = Promise.withResolvers<unknown>();
  const socket = await connectSeqpacket(join(directory, "attach"), {
    message: (packet) => packets.push(packet.toString()),
    closed: (error) => end.resolve(error),
  });
  const peer = await server.accepted;
  for (let count = 0; count < 100; count++) addon.send(peer, Buffer.from(`packet ${count}`));
  await Promise.all(["a", "bb", "ccc"].map((text) => socket.send(Buffer.from(text))));
  const received = ["", "", ""].map(() => String(addon.read(peer, 100)));
  expect(received).toEqual(["a", "bb", "ccc"]);
  addon.close(peer);
  await expect(end.promise).resolves.toBeUndefined();
  expect(packets).toEqual(Array.from({ length: 100 }, (_, count) => `packet ${count}`));
  await expect(socket.send(Buffer.from("late"))).rejects.toMatchObject({ code: "EPIPE" });
  server.close();
});

test("an end of sending is told after what was sent, and leaves reading as it is", async () => {
  const { addon } = getMachine();
  const server = serve(join(directory, "half"));
  const packets = Promise.withResolvers<string>();
  const socket = await connectSeqpacket(join(directory, "half"), {
    message: (packet) => packets.resolve(packet.toString()),
    closed: () => packets.reject(new Error("closed")),
  });
  const peer = await server.accepted;
  await socket.send(Buffer.from("last"));
  socket.endSending();
  expect(String(addon.read(peer, 100))).toBe("last");
  expect(addon.read(peer, 100)).toEqual(Buffer.alloc(0));
  addon.send(peer, Buffer.from("still read"));
  expect(await packets.promise).toBe("still read");
  socket.close();
  addon.close(peer);
  server.close();
});

test("a sender waits for a slow reader and loses nothing", async () => {
  const { addon, watch } = getMachine();
  const server = serve(join(directory, "attach"));
  const socket = await connectSeqpacket(join(directory, "attach"), {
    message: () => undefined,
    closed: () => undefined,
  });
  const peer = await server.accepted;
  const packet = Buffer.alloc(8192, "x");
  let total = 0;
  const sent = Promise.all(Array.from({ length: 200 }, () => socket.send(packet)));
  const reading = watch(peer, readable, () => {
    const bytes = addon.read(peer, 8192);
    if (typeof bytes !== "number") total += bytes.length;
    reading.arm(readable);
  });
  await sent;
  for (let bytes = addon.read(peer, 8192); typeof bytes !== "number"; bytes = addon.read(peer, 8192))
    total += bytes.length;
  expect(total).toBe(200 * 8192);
  reading.stop();
  addon.close(peer);
  await socket[Symbol.asyncDispose]();
  server.close();
});

test("a paused socket reads nothing until it is resumed", async () => {
  const { addon } = getMachine();
  const server = serve(join(directory, "attach"));
  const first = Promise.withResolvers<string>();
  const socket = await connectSeqpacket(join(directory, "attach"), {
    message: (packet) => {
      expect(isPaused).toBe(false);
      first.resolve(packet.toString());
    },
    closed: () => undefined,
  });
  let isPaused = true;
  socket.pause();
  const peer = await server.accepted;
  addon.send(peer, Buffer.from("later"));
  await new Promise((resolve) => setImmediate(resolve));
  isPaused = false;
  socket.resume();
  await expect(first.promise).resolves.toBe("later");
  socket.close();
  addon.close(peer);
  server.close();
});

test("paths longer than a socket address are reached", async () => {
  const deep = join(directory, "d".repeat(120));
  await mkdir(deep);
  const server = serve(join(deep, "attach"));
  const socket = await connectSeqpacket(join(deep, "attach"), { message: () => undefined, closed: () => undefined });
  getMachine().addon.close(await server.accepted);
  socket.close();
  server.close();
  await expect(readdir(deep)).resolves.toEqual(["attach"]);
});

test("connecting to nothing, or to a stream socket, says so", async () => {
  const handlers = { message: () => undefined, closed: () => undefined };
  await expect(connectSeqpacket(join(directory, "absent"), handlers)).rejects.toMatchObject({ code: "ENOENT" });
  const server = createServer().listen(join(directory, "stream"));
  await new Promise((resolve) => server.once("listening", resolve));
  await expect(connectSeqpacket(join(directory, "stream"), handlers)).rejects.toMatchObject({ code: "EPROTOTYPE" });
  await new Promise((resolve) => server.close(resolve));
});

test("descriptors travel with their message and are close-on-exec", () => {
  const { addon } = getMachine();
  const pair = addon.socketPair(stream);
  const pipe = addon.pipe();
  if (typeof pair === "number" || typeof pipe === "number") throw new Error("no descriptors");
  expect(() => recvFds(pair[0], 10)).toThrow(/EAGAIN/);
  sendFds(pair[1], pipe, Buffer.from("two"));
  const { data, fds } = recvFds(pair[0], 10);
  expect(data.toString()).toBe("two");
  expect(fds).toHaveLength(2);
  const flags = readFileSync(`/proc/self/fdinfo/${fds[0]}`, "utf8").match(/flags:\s*(\d+)/)?.[1];
  expect(Number.parseInt(flags ?? "0", 8) & 0o2000000).toBe(0o2000000);
  expect(fstatSync(fds[0]!).ino).toBe(fstatSync(pipe[0]).ino);
  expect(() => sendFds(pair[1], [], Buffer.from("none"))).toThrow(/EINVAL/);
  expect(() => sendFds(pair[1], [9_999_999], Buffer.from("bad"))).toThrow(/EBADF/);
  for (const fd of [...pair, ...pipe, ...fds]) closeSync(fd);
});

test("a console socket takes one terminal and leaves no file", async () => {
  const { addon } = getMachine();
  const path = join(directory, "console");
  const socket = await openConsoleSocket(path);
  const sender = addon.connectUnix(path, stream);
  const pipe = addon.pipe();
  if (typeof pipe === "number") throw new Error("no descriptors");
  sendFds(sender, [pipe[0]], Buffer.from("/dev/pts/ptmx"));
  const terminal = await socket.terminal;
  expect(fstatSync(terminal).ino).toBe(fstatSync(pipe[0]).ino);
  expect(() => setWindowSize(terminal, { rows: 24, columns: 80 })).toThrow(/ENOTTY/);
  await socket[Symbol.asyncDispose]();
  for (const fd of [terminal, sender, ...pipe]) closeSync(fd);
  await expect(readdir(directory)).resolves.toEqual([]);
});

test("a console socket that gets no descriptor, or is closed, rejects", async () => {
  const { addon } = getMachine();
  const path = join(directory, "console");
  const empty = await openConsoleSocket(path);
  const sender = addon.connectUnix(path, stream);
  addon.send(sender, Buffer.from("nothing"));
  await expect(empty.terminal).rejects.toMatchObject({ code: "EBADMSG" });
  await empty[Symbol.asyncDispose]();
  addon.close(sender);
  const closed = await openConsoleSocket(path);
  await closed[Symbol.asyncDispose]();
  await expect(closed.terminal).rejects.toThrow("closed");
});

test.each(["path", "abstract name"])("a datagram reaches a socket by its %s", (kind) => {
  const { addon } = getMachine();
  const address = kind === "path" ? join(directory, "notify") : `@${directory}/notify`;
  const receiver = addon.listenUnix(address, datagram);
  expect(receiver).toBeGreaterThan(0);
  sendDatagram(address, "READY=1");
  sendDatagram(address, "STOPPING=1");
  const received = [addon.read(receiver, 100), addon.read(receiver, 100)].map(String);
  closeSync(receiver);
  expect(received).toEqual(["READY=1", "STOPPING=1"]);
  expect(() => sendDatagram(address, "late")).toThrow(/ECONNREFUSED/);
  expect(() => sendDatagram("relative", "lost")).toThrow(/EINVAL/);
});
