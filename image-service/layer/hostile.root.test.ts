import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { createRandom, damage, fuzzSeed, type Random } from "../fuzz.ts";
import { defaultLimits, type PullLimits } from "../registry/limits.ts";
import { makeTar, sha256, stateOf, tarHeader, type TestEntry } from "../testing.ts";
import { skeletonPath } from "./skeleton.ts";
import { unpackLayer } from "./unpack.ts";
import { verifyLayer } from "./verify.ts";

let scratch: string;
let outside: string;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "berth-hostile-"));
  outside = join(scratch, "outside");
  await mkdir(outside);
  await writeFile(join(outside, "secret"), "secret");
});
afterEach(async () => {
  await rm(scratch, { recursive: true, force: true });
});

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

/** Unpacks into a folder that is removed again; what it was refused for, or what lay in its root. */
async function attempt(
  layer: { readonly blob: Buffer; readonly tar?: Buffer },
  limits: Partial<PullLimits> = {},
): Promise<Error | string[]> {
  const directory = await mkdtemp(join(scratch, "layer-"));
  const target = { directory, diffId: sha256(layer.tar ?? layer.blob), limits: { ...defaultLimits, ...limits } };
  try {
    await unpackLayer(cut(layer.blob, 40_000), target);
    // What is kept of its archive makes it again, and nothing is found wrong with it.
    if (existsSync(skeletonPath(directory))) expect(await verifyLayer(target)).toBeUndefined();
    return readdirSync(join(directory, "diff")).toSorted();
  } catch (thrown) {
    return thrown instanceof Error ? thrown : new Error(String(thrown));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function withChecksum(block: Buffer): Buffer {
  block.write("        ", 148);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

/** A header whose size is eight bytes of base 256. */
function hugeHeader(size: bigint): Buffer {
  const block = tarHeader({ name: "huge" }, 0);
  block.writeBigUInt64BE(0x8000_0000_0000_0000n, 124);
  block.writeUInt32BE(0x8000_0000, 124);
  block.writeBigUInt64BE(size, 128);
  return withChecksum(block);
}

const end = Buffer.alloc(1024);
const oldSparse = Buffer.concat([tarHeader({ name: "sparse", type: "S" }, 512), Buffer.alloc(512), end]);
const lie = Buffer.from("99 path=x\n".padEnd(512, "\0"));
const manyHeaders = Array.from({ length: 3000 }, (_, index) => [
  tarHeader({ name: "PaxHeaders/0", type: "x" }, 12),
  Buffer.from(`12 k=${String(index).padStart(6, "0")}\n`.padEnd(512, "\0")),
]).flat();

describe("a hostile layer", () => {
  test.each<readonly [string, Buffer, RegExp]>([
    ["a size of 2^63 in binary", hugeHeader(2n ** 63n), /out of range/],
    ["a size of 2^64 - 1 in binary", hugeHeader(2n ** 64n - 1n), /out of range/],
    ["a file of 1 TB that does not come", Buffer.concat([hugeHeader(2n ** 40n), end]), /larger than/],
    ["a size of 2^63 in a pax header", makeTar([{ name: "f", pax: { size: "9223372036854775808" } }]), /out of range/],
    ["a negative size in a pax header", makeTar([{ name: "f", pax: { size: "-1" } }]), /out of range/],
    ["a sparse file of 1 TB, the old way", oldSparse, /unsupported type/],
    [
      "a sparse file of 1 TB, by pax",
      makeTar([{ name: "f", content: "x", pax: { "GNU.sparse.major": "1", "GNU.sparse.realsize": "1099511627776" } }]),
      /sparse/,
    ],
    ["pax headers without end", Buffer.concat(manyHeaders), /headers of one entry are larger/],
    ["a pax header of 2 MB", makeTar([{ name: "f", pax: { comment: "x".repeat(2_000_000) } }]), /larger than/],
    ["a pax header whose length lies", Buffer.concat([tarHeader({ name: "p", type: "x" }, 10), lie, end]), /malformed/],
    ["a pax path with NUL", makeTar([{ name: "f", pax: { path: "a\0b" } }]), /NUL/],
    ["a component of 300 bytes", makeTar([{ name: "f", pax: { path: "x".repeat(300) } }]), /longer than 255/],
    ["an owner beyond 32 bits", makeTar([{ name: "f", pax: { uid: "4294967296" } }]), /owner/],
    ["an end in the middle of a file", tarHeader({ name: "f" }, 5000), /middle of an entry/],
    [
      "an archive after the archive's first zeros",
      Buffer.concat([end.subarray(512), makeTar([{ name: "f" }])]),
      /zeros/,
    ],
  ])("with %s is refused with a reason", async (_, tar, reason) => {
    for (const blob of [tar, gzipSync(tar)]) {
      const outcome = await attempt({ blob, tar });
      expect(outcome).toMatchObject({ name: "LayerError", message: expect.stringMatching(reason) });
    }
  });

  test("that is a gzip bomb is refused at the limit, in one member and in many", async () => {
    const bomb = gzipSync(Buffer.alloc(32 << 20), { level: 9 });
    const header = gzipSync(tarHeader({ name: "zeros" }, 2 ** 33 - 1));
    for (const blob of [
      Buffer.concat([header, bomb]),
      Buffer.concat([header, ...Array.from({ length: 40 }, () => bomb)]),
    ])
      expect(await attempt({ blob }, { layerBytes: 16 << 20 })).toMatchObject({ message: /larger than/ });
  });

  test("that has more than a million entries is refused at the one that is too much", {
    timeout: 240_000,
  }, async () => {
    const header = tarHeader({ name: ".wh..wh.aufs" }, 0); // counts like any other, and makes no work for the disk
    const many = Buffer.alloc(header.length * 1000, header);
    async function* entries(): AsyncGenerator<Buffer, void> {
      for (let thousand = 0; thousand < 1000; thousand += 1) yield many;
      yield header;
      throw new Error("read on after the last entry that is allowed");
    }
    const directory = join(scratch, "layer");
    await mkdir(directory);
    const unpacking = unpackLayer(entries(), { directory, diffId: sha256(""), limits: defaultLimits });
    await expect(unpacking).rejects.toThrow("the layer has more than 1000000 entries");
    await rm(directory, { recursive: true });
  });

  test("counts the folders that its entries only name on their way", async () => {
    const deep = (root: string): TestEntry => ({ name: `${root}/${"d/".repeat(40)}f`, content: "x" });
    const blob = makeTar([deep("a"), deep("b"), deep("c")]);
    expect(await attempt({ blob }, { layerEntries: 126 })).toEqual(["a", "b", "c"]);
    expect(await attempt({ blob }, { layerEntries: 125 })).toMatchObject({
      name: "LayerError",
      message: "the layer has more than 125 entries",
    });
  });

  test("keeps no more of its folders than allowed, however many members bring attributes for them", async () => {
    const folder = (name: string): TestEntry => ({
      name,
      type: "5",
      pax: { "SCHILY.xattr.user.large": "x".repeat(3000) },
    });
    const blob = makeTar(Array.from({ length: 20 }, (_, index) => folder(`d${index % 10}/`)));
    expect(await attempt({ blob }, { folderBytes: 61_000 })).toHaveLength(10);
    expect(await attempt({ blob }, { folderBytes: 60_000 })).toMatchObject({
      name: "LayerError",
      message: "the layer's folders have more than 60000 bytes of names and attributes",
    });
  });

  test("replaces no folder that came to be deeper than any path, through links", async () => {
    const down = "d/".repeat(300);
    const blob = makeTar([
      { name: "d/", type: "5", pax: { path: down } },
      { name: "l", type: "2", link: "d", pax: { linkpath: down } },
      { name: "f", content: "x", pax: { path: `l/${down}f` } },
      { name: "d", content: "instead" },
    ]);
    expect(await attempt({ blob })).toMatchObject({ name: "LayerError", message: /replaces a folder that is deeper/ });
  });

  test("takes the same memory whatever its folders' members have besides", async () => {
    const pax = { comment: "x".repeat(900_000), "SCHILY.xattr.user.a": "b" };
    const headers = makeTar([{ name: "d/", type: "5", pax }]).subarray(0, -1536);
    const memberOf = (index: number): Buffer =>
      Buffer.concat([headers, tarHeader({ name: `d${index}/`, type: "5" }, 0)]);
    const hash = createHash("sha256");
    for (let index = 0; index < 300; index += 1) hash.update(memberOf(index));
    async function* members(): AsyncGenerator<Buffer, void> {
      for (let index = 0; index < 300; index += 1) yield memberOf(index);
    }
    const directory = await mkdtemp(join(scratch, "layer-"));
    const before = process.memoryUsage().arrayBuffers;
    let highest = before;
    await unpackLayer(members(), {
      directory,
      diffId: `sha256:${hash.digest("hex")}`,
      limits: defaultLimits,
      onProgress: () => {
        highest = Math.max(highest, process.memoryUsage().arrayBuffers);
      },
    });
    await rm(directory, { recursive: true });
    expect(highest - before).toBeLessThan(160 << 20);
  });

  test("that names one path a thousand times has the last of them, and is done", async () => {
    const entries = Array.from({ length: 1000 }, (_, index): TestEntry => {
      const shapes: TestEntry[] = [
        { name: "a", content: `${index}` },
        { name: "a/", type: "5" },
        { name: "a", type: "2", link: "/etc" },
        { name: "a/b", content: "below" },
        { name: ".wh.a" },
      ];
      return index % 5 === 3 ? { name: "a2/b", content: "x" } : (shapes[index % 5] ?? { name: "a" });
    });
    expect(await attempt({ blob: makeTar([...entries, { name: "a", content: "last" }]) })).toEqual(["a", "a2"]);
  });
});

const names = [
  "a",
  "a/b",
  "a/b/c",
  "d",
  "d/",
  "l",
  "l/x",
  "./",
  "/",
  "..",
  "a/../../x",
  ".wh.a",
  "a/.wh..wh..opq",
  ".wh..wh.x",
  "é",
  "",
];
const links = ["a", "l", "..", "../..", "/", "OUTSIDE", "OUTSIDE/secret", "/proc/self/fd", "a/b", ""];

function randomEntry(random: Random): TestEntry {
  const pick = (list: readonly string[]): string => list[random(list.length)] ?? "";
  return {
    name: pick(names),
    type: pick(["0", "0", "0", "1", "2", "3", "4", "5", "5", "6", "7", "S", "x"]),
    link: pick(links).replace("OUTSIDE", outside),
    content: random(3) === 0 ? "x".repeat(random(3000)) : "",
    mode: random(0o10000),
    uid: random(3) * 70_000,
    ...(random(6) === 0
      ? { pax: { [pick(["path", "linkpath", "size", "uid", "mtime"])]: pick([...names, "7", "1e9", "-1"]) } }
      : {}),
  };
}

const seed = fuzzSeed();
test(`no archive that chance makes leaves its root, or fails but with a reason (seed ${seed})`, async () => {
  const random = createRandom(seed);
  const before = stateOf(join(outside, "secret"));
  await attempt({ blob: makeTar([{ name: "a" }]) }); // what stays open for good is open from here on
  const openBefore = readdirSync("/proc/self/fd").length;
  let unpacked = 0;
  for (let round = 0; round < 300; round += 1) {
    const whole = makeTar(Array.from({ length: 1 + random(4) }, () => randomEntry(random)));
    const blob = random(3) === 0 ? damage(whole, random) : whole;
    const outcome = await attempt({ blob }, { layerBytes: 1 << 20 });
    if (outcome instanceof Error) expect(outcome.name, `round ${round}: ${outcome.stack}`).toBe("LayerError");
    else unpacked += 1;
  }
  expect(unpacked).toBeGreaterThan(10); // it is not all refused at the door
  expect(readdirSync(scratch)).toEqual(["outside"]);
  expect(readdirSync(outside)).toEqual(["secret"]);
  expect(stateOf(join(outside, "secret"))).toEqual(before);
  await expect.poll(() => readdirSync("/proc/self/fd").length, { timeout: 10_000 }).toBe(openBefore); // streams close late
});
