import { chmod, lstat, mkdir, rename, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { Server } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { listenOnSocket, makePassage, refuseLiveListener } from "./listener.ts";
import { makeScratch, methodPath, openRawCall } from "./testing.ts";

function createIdleServer(): AsyncDisposable & { readonly server: Server } {
  const server = new Server();
  return { server, [Symbol.asyncDispose]: async () => server.forceShutdown() };
}

/** A socket file as a killed daemon leaves it: bound, and nobody behind it. */
async function leaveDeadSocket(path: string): Promise<void> {
  const server = createServer();
  server.listen(`${path}.live`);
  await once(server, "listening");
  await rename(`${path}.live`, path);
  server.close();
  await once(server, "close");
}

test("the socket has mode 0660 in a directory 0711", async () => {
  await using scratch = await makeScratch();
  await using idle = createIdleServer();
  const path = join(scratch.path, "run", "berth.sock");
  await makePassage(join(scratch.path, "run"));
  await listenOnSocket(idle.server, path);
  expect((await lstat(path)).mode & 0o777).toBe(0o660);
  expect((await lstat(path)).isSocket()).toBe(true);
  expect((await lstat(join(scratch.path, "run"))).mode & 0o777).toBe(0o711);
});

test("a directory that was there keeps its mode", async () => {
  await using scratch = await makeScratch();
  await mkdir(join(scratch.path, "run"));
  await chmod(join(scratch.path, "run"), 0o750);
  await makePassage(join(scratch.path, "run"));
  expect((await lstat(join(scratch.path, "run"))).mode & 0o777).toBe(0o750);
});

test("a live listener on the same path is an error, and stays live", async () => {
  await using scratch = await makeScratch();
  await using first = createIdleServer();
  await using second = createIdleServer();
  const path = join(scratch.path, "berth.sock");
  await listenOnSocket(first.server, path);
  await expect(listenOnSocket(second.server, path)).rejects.toThrow(`another server is listening on "${path}"`);
  await expect(refuseLiveListener(path)).rejects.toThrow("another server is listening");
});

test("a dead socket file is replaced, also one left half made", async () => {
  await using scratch = await makeScratch();
  await using idle = createIdleServer();
  const path = join(scratch.path, "berth.sock");
  await leaveDeadSocket(path);
  await leaveDeadSocket(`${path}.new`);
  const dead = await lstat(path);
  await listenOnSocket(idle.server, path);
  expect((await lstat(path)).ino).not.toBe(dead.ino);
  await expect(refuseLiveListener(path)).rejects.toThrow("another server is listening");
});

test("a file that is no socket is left alone", async () => {
  await using scratch = await makeScratch();
  await using idle = createIdleServer();
  const path = join(scratch.path, "berth.sock");
  await writeFile(path, "precious");
  await expect(listenOnSocket(idle.server, path)).rejects.toThrow(`"${path}" exists and is not a socket`);
  expect((await lstat(path)).isFile()).toBe(true);
});

test("closing removes our socket, and not one that another put there", async () => {
  await using scratch = await makeScratch();
  await using first = createIdleServer();
  await using second = createIdleServer();
  const path = join(scratch.path, "berth.sock");
  const listener = await listenOnSocket(first.server, path);
  await leaveDeadSocket(path);
  const other = await lstat(path);
  await listener.close();
  expect((await lstat(path)).ino).toBe(other.ino);
  const again = await listenOnSocket(second.server, path);
  await again.close();
  await expect(lstat(path)).rejects.toThrow("ENOENT");
});

test.each(["2147484S", "99999999H", "99999999M", "99999999S"])(
  "a deadline of %s has not passed at once",
  async (timeout) => {
    await using scratch = await makeScratch();
    await using idle = createIdleServer();
    const path = join(scratch.path, "berth.sock");
    const deadlines: number[] = [];
    idle.server.register(
      methodPath("Version"),
      (call: { getDeadline(): Date | number }, answer: (error: null, response: Buffer) => void) => {
        deadlines.push(Number(call.getDeadline()) - Date.now());
        answer(null, Buffer.alloc(0));
      },
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      "unary",
    );
    await listenOnSocket(idle.server, path);
    const { stream, breakConnection } = openRawCall(path, "Version", { "grpc-timeout": timeout });
    const trailers = once(stream, "trailers");
    stream.resume();
    const [received] = (await trailers) as [Record<string, unknown>];
    breakConnection();
    expect(received["grpc-status"]).toBe("0");
    expect(deadlines[0]).toBeGreaterThan(24 * 24 * 3600 * 1000);
  },
);
