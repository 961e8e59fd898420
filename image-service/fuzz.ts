import { createRandom as createFractions } from "../cri-api/testing.ts";

/** Numbers below a bound; the same seed gives the same run. For tests that damage what they read. */
export type Random = (below: number) => number;

export function createRandom(seed: number): Random {
  const fraction = createFractions(seed);
  return (below) => Math.floor(fraction() * below);
}

/** Bytes that programs stumble over: ends of ranges, separators, magic numbers. */
const oddBytes = Buffer.from([
  0, 1, 0x1f, 0x20, 0x2e, 0x2f, 0x30, 0x37, 0x3d, 0x5c, 0x7f, 0x80, 0x8b, 0xc0, 0xfe, 0xff,
]);

function damageOnce(bytes: Buffer, random: Random): Buffer {
  const at = random(bytes.length + 1);
  const length = 1 + random(8);
  const noise = Buffer.from(
    Array.from({ length }, () => (random(2) === 0 ? random(256) : (oddBytes[random(16)] ?? 0))),
  );
  const kind = random(5);
  if (kind === 0) return bytes.subarray(0, at);
  if (kind === 1) return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
  if (kind === 2) return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
  if (kind === 3) return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at - random(at + 1))]);
  return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at + length)]);
}

/** `bytes` cut, repeated, overwritten or grown in one to four places. */
export function damage(bytes: Buffer, random: Random): Buffer {
  let damaged = bytes;
  for (let left = 1 + random(4); left > 0; left -= 1) damaged = damageOnce(damaged, random);
  return damaged;
}

/** A seed of its own for each run, or the one of an earlier run: it stands in the name of the test that failed. */
export function fuzzSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}
