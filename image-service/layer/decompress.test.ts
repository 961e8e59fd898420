import { randomBytes } from "node:crypto";
import { gunzipSync, gzipSync, zstdCompressSync } from "node:zlib";

import { describe, expect, test } from "vitest";

import { createRandom, damage, fuzzSeed } from "../fuzz.ts";
import { decompress, detectCompression } from "./decompress.ts";
import { createZstdFrames } from "./zstd-frames.ts";

const text = Buffer.concat([Buffer.alloc(300_000, "layer "), randomBytes(200_000)]);

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

async function inflate(bytes: Buffer, size = 64 << 10): Promise<Buffer> {
  return await collect(decompress(cut(bytes, size)));
}

function skippable(length: number): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a53, 0);
  header.writeUInt32LE(length, 4);
  return Buffer.concat([header, Buffer.alloc(length, 1)]);
}

const half = text.length >> 1;
const [first, second] = [text.subarray(0, half), text.subarray(half)];
const frames = Buffer.concat([
  skippable(5),
  zstdCompressSync(first),
  skippable(0),
  zstdCompressSync(second),
  skippable(99),
]);

describe("decompress", () => {
  test.each([
    ["plain", text],
    ["gzip", gzipSync(text)],
    ["several gzip members", Buffer.concat([gzipSync(first), gzipSync(second)])],
    ["gzip padded with zeros", Buffer.concat([gzipSync(text), Buffer.alloc(1000)])],
    ["zstd", zstdCompressSync(text)],
    ["several zstd frames, and skippable ones (zstd:chunked)", frames],
  ])("gives back %s input, however it is cut", async (_, bytes) => {
    for (const size of [1 << 20, 64 << 10, 4099]) expect((await inflate(bytes, size)).equals(text)).toBe(true);
  });

  test("empty and tiny inputs are plain", async () => {
    expect(await inflate(Buffer.alloc(0))).toEqual(Buffer.alloc(0));
    expect(await inflate(Buffer.from([0x1f, 0x8b]), 1)).toEqual(Buffer.from([0x1f, 0x8b]));
  });

  test.each([
    ["a cut gzip stream", gzipSync(text).subarray(0, 5000)],
    ["a damaged gzip stream", Buffer.concat([gzipSync(text).subarray(0, 5000), Buffer.alloc(5000, 7)])],
    ["a cut zstd stream", zstdCompressSync(text).subarray(0, 5000)],
    ["zstd followed by noise", Buffer.concat([zstdCompressSync(text), Buffer.from("noise")])],
    ["xz", Buffer.from("fd377a585a000004e6d6b446", "hex")],
    ["bzip2", Buffer.from("425a683931415926535900", "hex")],
  ])("refuses %s", async (_, bytes) => {
    await expect(inflate(bytes)).rejects.toThrow(expect.objectContaining({ name: "LayerError" }));
  });

  test("a failing source ends it with the source's error", async () => {
    async function* failing(): AsyncGenerator<Buffer, void> {
      yield gzipSync(text).subarray(0, 5000);
      throw new Error("the network is gone");
    }
    await expect(collect(decompress(failing()))).rejects.toThrow("the network is gone");
  });

  test("a reader may stop early", async () => {
    for await (const chunk of decompress(cut(gzipSync(text), 1000))) {
      expect(chunk.length).toBeGreaterThan(0);
      break;
    }
  });

  test("knows formats by their first bytes", () => {
    expect(detectCompression(gzipSync("x"))).toBe("gzip");
    expect(detectCompression(zstdCompressSync("xxxxxx"))).toBe("zstd");
    expect(detectCompression(skippable(4))).toBe("zstd");
    expect(detectCompression(Buffer.alloc(512))).toBe("none");
  });
});

test("zstd input is cut exactly at the ends of frames", () => {
  const parts = [skippable(3), zstdCompressSync(first), zstdCompressSync(randomBytes(10)), zstdCompressSync("")];
  const splitter = createZstdFrames();
  expect(Array.from(splitter.split(Buffer.concat(parts)), ({ length }) => length)).toEqual(
    parts.map(({ length }) => length),
  );
  const byByte = createZstdFrames();
  const ends: number[] = [];
  let pieces = 0;
  for (const byte of Buffer.concat(parts))
    for (const piece of byByte.split(Buffer.from([byte]))) ends.push((pieces += piece.length));
  expect(ends).toHaveLength(Buffer.concat(parts).length);
});

function gunzipOrRefuse(bytes: Buffer): Buffer | "refused" {
  try {
    return gunzipSync(bytes);
  } catch {
    return "refused";
  }
}

const seed = fuzzSeed();
test(`damaged gzip is refused as zlib refuses it, or gives what zlib gives (seed ${seed})`, async () => {
  const random = createRandom(seed);
  const whole = [text.subarray(0, 3000), text.subarray(299_000, 303_000), Buffer.alloc(0), Buffer.alloc(70_000)].map(
    (part, level) => gzipSync(part, { level: 2 * level }),
  );
  for (let round = 0; round < 400; round += 1) {
    const damaged = damage(Buffer.concat(whole.slice(0, 1 + random(4))), random);
    if (damaged.length < 6 || damaged.readUInt16BE(0) !== 0x1f8b) continue; // then it counts as plain
    const expected = gunzipOrRefuse(damaged);
    const actual = await inflate(damaged, 1 + random(5000)).catch((thrown: Error) => thrown);
    if (actual instanceof Error) expect(actual.name).toBe("LayerError");
    expect(actual instanceof Error ? "refused" : actual, `round ${round}: ${damaged.toString("base64")}`).toEqual(
      expected,
    );
  }
});
