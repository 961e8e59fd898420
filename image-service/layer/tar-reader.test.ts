import { describe, expect, test } from "vitest";

import { makeTar, tarHeader, type TestEntry } from "../testing.ts";
import type { TarEntry } from "./tar-entry.ts";
import { createTarReader } from "./tar-reader.ts";

const limits = { layerBytes: 1 << 30, tarMetadataBytes: 1 << 16 };
type Read = TarEntry & { readonly content: string };

function read(archive: Buffer, chunkBytes = archive.length, given = limits): Read[] {
  const entries: Read[] = [];
  let content: Buffer[] = [];
  let current: TarEntry | undefined;
  const reader = createTarReader(
    {
      begin(entry) {
        current = entry;
        content = [];
      },
      data: (chunk) => content.push(Buffer.from(chunk)),
      end() {
        if (current !== undefined) entries.push({ ...current, content: Buffer.concat(content).toString("latin1") });
      },
    },
    given,
  );
  for (let offset = 0; offset < archive.length; offset += chunkBytes)
    reader.write(archive.subarray(offset, offset + chunkBytes));
  reader.finish();
  return entries;
}

function gnuLong(type: "L" | "K", text: string): TestEntry {
  return { name: "././@LongLink", type, content: `${text}\0` };
}

describe("a tar archive", () => {
  const archive = makeTar([
    { name: "d/", type: "5", mode: 0o1777 },
    { name: "d/file", content: "x".repeat(1300), mode: 0o4755, uid: 5, gid: 6, mtime: 77 },
    { name: "empty" },
    { name: "link", type: "2", link: "/etc/passwd" },
    { name: "hard", type: "1", link: "d/file" },
    { name: "dev", type: "3", major: 1, minor: 3 },
    { name: "pipe", type: "6" },
  ]);

  test("gives the same members however it is cut", () => {
    const whole = read(archive);
    expect(whole.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      "directory d/",
      "file d/file",
      "file empty",
      "symlink link",
      "hardlink hard",
      "character dev",
      "fifo pipe",
    ]);
    expect(whole[1]).toMatchObject({ mode: 0o4755, uid: 5, gid: 6, size: 1300, mtimeNs: 77_000_000_000n });
    expect(whole[1]?.content).toBe("x".repeat(1300));
    for (const chunkBytes of [1, 7, 511, 512, 513, 4096]) expect(read(archive, chunkBytes)).toEqual(whole);
  });

  test("pax headers override names, sizes, owners and times, and carry xattrs as bytes", () => {
    const long = `${"ü".repeat(200)}/name`;
    const [entry, next] = read(
      makeTar([
        {
          name: "short",
          content: "abc",
          pax: {
            path: long,
            uid: "70000",
            mtime: "1.123456789",
            "SCHILY.xattr.user.x": Buffer.from([0, 255, 10]),
            comment: "ignored",
          },
        },
        { name: "next" },
      ]),
      100,
    );
    expect(entry).toMatchObject({ name: long, uid: 70000, mtimeNs: 1_123_456_789n, content: "abc" });
    expect(entry?.xattrs).toEqual([["user.x", Buffer.from([0, 255, 10])]]);
    expect(next).toMatchObject({ name: "next", uid: 0, xattrs: [] });
  });

  test("global headers hold for all that follow", () => {
    const body = Buffer.from("12 uid=4242\n");
    const global = Buffer.concat([
      tarHeader({ name: "g", type: "g" }, body.length),
      body,
      Buffer.alloc(512 - body.length),
    ]);
    expect(read(Buffer.concat([global, makeTar([{ name: "a" }, { name: "b" }])])).map(({ uid }) => uid)).toEqual([
      4242, 4242,
    ]);
  });

  test("GNU long names and links hold for the next member", () => {
    const name = "n".repeat(300);
    const [entry] = read(
      makeTar([gnuLong("L", name), gnuLong("K", "t".repeat(200)), { name: "x", type: "2", link: "y" }]),
    );
    expect(entry).toMatchObject({ name, linkName: "t".repeat(200) });
  });

  test("an old archive's folder is a regular member whose name ends in a slash", () => {
    expect(read(makeTar([{ name: "old/", type: "\0" }]))[0]?.kind).toBe("directory");
  });

  test("numbers may be binary, and times before 1970", () => {
    const block = tarHeader({ name: "f" }, 0);
    Buffer.from([0x80, 0, 0, 0, 0, 1, 0x11, 0x70]).copy(block, 108);
    Buffer.alloc(12, 0xff).copy(block, 136);
    block.write("        ", 148);
    block.write(
      `${block
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, "0")}\0 `,
      148,
    );
    expect(read(Buffer.concat([block, Buffer.alloc(1024)]))[0]).toMatchObject({ uid: 70000, mtimeNs: -1_000_000_000n });
  });

  test("what follows its end is not looked at", () => {
    expect(read(Buffer.concat([makeTar([{ name: "a" }]), Buffer.alloc(9000, 0x41)]), 300)).toHaveLength(1);
  });

  test("may be empty, or lack the blocks of zeros", () => {
    expect(read(Buffer.alloc(0))).toEqual([]);
    expect(read(Buffer.alloc(1024))).toEqual([]);
    expect(read(makeTar([{ name: "a", content: "b" }]).subarray(0, 1024))).toHaveLength(1);
  });
});

describe("a hostile archive", () => {
  const pax = (records: Record<string, string | Uint8Array>): Buffer =>
    makeTar([{ name: "f", content: "1", pax: records }]);
  const rawPax = (body: string): Buffer =>
    Buffer.concat([
      tarHeader({ name: "p", type: "x" }, body.length),
      Buffer.from(body.padEnd(512, "\0")),
      makeTar([{ name: "f" }]),
    ]);

  const globalHeader = (key: string, length: number): Buffer => {
    const body = `${length} ${key}=`.padEnd(length - 1, "x");
    const padding = Buffer.alloc((512 - (length % 512)) % 512);
    return Buffer.concat([tarHeader({ name: "g", type: "g" }, length), Buffer.from(`${body}\n`), padding]);
  };

  test("global headers may come again and again, but not more of them than fit the limit", () => {
    const file = makeTar([{ name: "a" }]).subarray(0, 512);
    const archive = (keys: readonly string[]): Buffer =>
      Buffer.concat(keys.flatMap((key) => [globalHeader(key, 40_000), file]));
    expect(read(archive(["k", "k", "k"]))).toHaveLength(3);
    expect(() => read(archive(["k", "l"]))).toThrow("too many global headers");
  });

  test.each([
    ["cut in a header", makeTar([{ name: "a" }]).subarray(0, 100)],
    ["cut in content", makeTar([{ name: "a", content: "x".repeat(600) }]).subarray(0, 700)],
    ["noise", Buffer.alloc(1024, 0x41)],
    ["going on after one block of zeros", Buffer.concat([Buffer.alloc(512), makeTar([{ name: "a" }])])],
    ["with a file of 2^60 bytes", makeTar([{ name: "a", pax: { size: String(2 ** 60) } }])],
    ["with a 1 TB header", makeTar([{ name: "a", size: 2 ** 32 }])],
    ["with a size that is no number", pax({ size: "1e3" })],
    ["with an owner beyond the kernel's", pax({ uid: "4294967295" })],
    ["with a negative owner", pax({ gid: "-1" })],
    ["with a time that is no time", pax({ mtime: "tomorrow" })],
    ["with a sparse file", pax({ "GNU.sparse.major": "1" })],
    ["with an old sparse file", makeTar([{ name: "a", type: "S" }])],
    ["with an unknown type", makeTar([{ name: "a", type: "Z" }])],
    ["with a long name that is not UTF-8", pax({ path: Buffer.alloc(5000, 0xff) })],
    ["with a pax record longer than its header", rawPax("99 path=x\n")],
    ["with a pax record of length 0", rawPax("0 path=x\n")],
    ["with a pax record without a key", rawPax("5 =x\n")],
    ["with a pax record without a newline", rawPax("9 path=xy")],
    ["with a pax header larger than the limit", makeTar([{ name: "a", pax: { comment: "c".repeat(70_000) } }])],
    ["with a long name larger than the limit", makeTar([gnuLong("L", "n".repeat(70_000)), { name: "a" }])],
    ["with endless headers before one entry", makeTar(Array.from({ length: 200 }, () => gnuLong("L", "x")))],
    ["with a pax header that claims 2^33 bytes", tarHeader({ name: "p", type: "x" }, 2 ** 33 - 1)],
  ])("%s is refused", (_, archive) => {
    expect(() => read(archive)).toThrow(expect.objectContaining({ name: "LayerError" }));
  });

  test("any single flipped byte is an error or a member, never a crash", () => {
    const archive = makeTar([{ name: "a", content: "b", pax: { path: "c", mtime: "1.5" } }]);
    for (let offset = 0; offset < 2048; offset += 1) {
      const broken = Buffer.from(archive);
      broken[offset] = (broken[offset] ?? 0) ^ 0xa5;
      try {
        read(broken, 333);
      } catch (thrown) {
        expect((thrown as Error).name).toBe("LayerError");
      }
    }
  });
});
