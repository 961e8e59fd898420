import { chmod, mkdir, mkdtemp, rename, rm, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { getMachine } from "./events.ts";
import { createEventFd, type DirectoryEvent, parseEvents, watchDirectory } from "./watch.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-watch-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

/** Collects until an event of that name and kind has come. */
function collector(): {
  onEvent: (event: DirectoryEvent) => void;
  until: (name: string, kind: string) => Promise<void>;
} {
  const seen: DirectoryEvent[] = [];
  let check = (): void => undefined;
  return {
    onEvent: (event) => {
      seen.push(event);
      check();
    },
    until: (name, kind) =>
      new Promise((resolve) => {
        check = () => {
          if (seen.some((event) => event.name === name && event.kinds.some((one) => one === kind))) resolve();
        };
        check();
      }),
  };
}

test("a watched folder reports a file that is made executable", async () => {
  await writeFile(join(directory, "bridge"), "", { mode: 0o644 });
  const { onEvent, until } = collector();
  await using _watching = watchDirectory(directory, onEvent);
  await chmod(join(directory, "bridge"), 0o755);
  await until("bridge", "attributes");
});

test("a watched folder reports files that are written, moved and deleted", async () => {
  const { onEvent, until } = collector();
  await using _watching = watchDirectory(directory, onEvent);
  await writeFile(join(directory, "10-a.conflist.tmp"), "{}");
  await until("10-a.conflist.tmp", "written");
  await rename(join(directory, "10-a.conflist.tmp"), join(directory, "10-a.conflist"));
  await until("10-a.conflist", "moved-to");
  await unlink(join(directory, "10-a.conflist"));
  await until("10-a.conflist", "deleted");
  await rm(directory, { recursive: true });
  await until("", "directory-gone");
});

test("many events in one burst all arrive", async () => {
  const names = Array.from({ length: 500 }, (_, index) => `file-${index}`);
  const missing = new Set(names);
  const { promise, resolve } = Promise.withResolvers<void>();
  await using _watching = watchDirectory(directory, ({ name, kinds }) => {
    if (kinds.includes("created")) missing.delete(name);
    if (missing.size === 0) resolve();
  });
  await Promise.all(names.map((name) => writeFile(join(directory, name), "")));
  await promise;
});

test("a disposed watch is silent", async () => {
  const { onEvent, until } = collector();
  const silent = watchDirectory(directory, () => expect.unreachable());
  await silent[Symbol.asyncDispose]();
  await silent[Symbol.asyncDispose]();
  await using _watching = watchDirectory(directory, onEvent);
  await mkdir(join(directory, "x"));
  await until("x", "created");
});

test("watching refuses what is no folder", async () => {
  expect(() => watchDirectory(join(directory, "absent"), () => undefined)).toThrow(/ENOENT/);
  await writeFile(join(directory, "file"), "");
  expect(() => watchDirectory(join(directory, "file"), () => undefined)).toThrow(/ENOTDIR/);
  expect(() => watchDirectory("relative", () => undefined)).toThrow(/EINVAL/);
});

test("an overflow is told, and half an event is not read", () => {
  const overflow = Buffer.alloc(16);
  overflow.writeUInt32LE(0x4000, 4);
  expect(parseEvents(overflow)).toEqual([{ name: "", kinds: ["overflow"] }]);
  expect(parseEvents(Buffer.concat([overflow, Buffer.alloc(7)]))).toHaveLength(1);
});

test("an eventfd tells by how much it was raised, each time", async () => {
  const counts: bigint[] = [];
  let next = Promise.withResolvers<void>();
  await using eventFd = createEventFd((count) => {
    counts.push(count);
    next.resolve();
  });
  const raise = (count: bigint): void => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(count);
    expect(getMachine().addon.write(eventFd.fd, bytes)).toBe(8);
  };
  raise(3n);
  raise(2n ** 40n);
  await next.promise;
  next = Promise.withResolvers<void>();
  raise(1n);
  await next.promise;
  expect(counts).toEqual([2n ** 40n + 3n, 1n]);
});
