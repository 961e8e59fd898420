import { expect, test } from "vitest";

import { CriError } from "../cri-api/index.ts";
import { isDigest } from "./digest.ts";
import { createRandom, damage, fuzzSeed, type Random } from "./fuzz.ts";
import { parseImageDocument } from "./image-config.ts";
import { formatReference, parseImageReference, repositoryOf } from "./reference.ts";
import { RegistryFailure } from "./registry/failure.ts";
import { mediaTypes, parseManifest } from "./registry/manifest.ts";
import { makeImage, makeTar } from "./testing.ts";

const seed = fuzzSeed();
const rounds = 3000;

/** Values that stand where others are expected. */
const strangers: readonly unknown[] = [
  null,
  true,
  -1,
  1.5,
  2 ** 53,
  "9223372036854775808",
  "",
  "../../etc/passwd",
  "sha256:../x",
  [],
  {},
  [[]],
  JSON.parse('{"__proto__":{"digest":"x"}}'),
];

/** The document with something in it replaced, removed or added. */
function twist(value: unknown, random: Random): unknown {
  if (random(8) === 0) return strangers[random(strangers.length)];
  if (Array.isArray(value)) return value.map((item: unknown) => (random(2) === 0 ? twist(item, random) : item));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(() => random(12) > 0);
  const twisted = entries.map(([key, item]) => [key, random(2) === 0 ? twist(item, random) : item] as const);
  if (random(10) === 0) twisted.push(["manifests", strangers[random(strangers.length)]]);
  return Object.fromEntries(twisted);
}

const { manifest, blobs, id } = makeImage([makeTar([{ name: "a" }]), makeTar([{ name: "b" }])]);
const index = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    manifests: [
      { mediaType: mediaTypes.ociManifest, digest: id, size: 5, platform: { os: "linux", architecture: "amd64" } },
    ],
  }),
);
const config = blobs.get(id) ?? Buffer.alloc(0);

function variantsOf(document: Buffer, random: Random): Buffer {
  return random(3) === 0
    ? damage(document, random)
    : Buffer.from(JSON.stringify(twist(JSON.parse(document.toString()), random)) ?? "");
}

test(`a manifest that chance makes is read with sound digests and sizes, or refused (seed ${seed})`, () => {
  const random = createRandom(seed);
  let read = 0;
  for (let round = 0; round < rounds; round += 1) {
    const isIndex = random(2) === 0;
    const bytes = variantsOf(isIndex ? index : manifest, random);
    try {
      const parsed = parseManifest(bytes, isIndex ? mediaTypes.ociIndex : mediaTypes.ociManifest);
      read += 1;
      const descriptors =
        parsed.kind === "index"
          ? parsed.entries
          : parsed.kind === "image"
            ? [parsed.config, ...parsed.layers]
            : parsed.files;
      for (const { digest, size } of descriptors)
        expect([isDigest(digest), Number.isSafeInteger(size), size >= 0]).toEqual([true, true, true]);
    } catch (thrown) {
      if (!(thrown instanceof RegistryFailure))
        throw new Error(`round ${round}: ${bytes.toString()}`, { cause: thrown });
      expect(thrown.message.length).toBeLessThan(1000);
    }
  }
  expect(read).toBeGreaterThan(50);
});

test(`an image config that chance makes is read, or refused with an error (seed ${seed})`, () => {
  const random = createRandom(seed);
  let read = 0;
  for (let round = 0; round < rounds; round += 1) {
    const text = variantsOf(config, random).toString();
    try {
      const { diffIds } = parseImageDocument(text);
      read += 1;
      expect(diffIds.every((diffId) => isDigest(diffId))).toBe(true);
    } catch (thrown) {
      expect(thrown).toBeInstanceOf(Error);
    }
  }
  expect(read).toBeGreaterThan(50);
});

test(`a reference that chance makes is InvalidArgument, or a name that holds no path (seed ${seed})`, () => {
  const random = createRandom(seed);
  const sound = ["busybox", "a.example:5000/x/y_z:v1", `localhost/a@sha256:${"0".repeat(64)}`, "[::1]:5000/a-b:T.1"];
  let read = 0;
  for (let round = 0; round < rounds; round += 1) {
    const text = damage(Buffer.from(sound[random(sound.length)] ?? ""), random).toString("latin1");
    try {
      const reference = parseImageReference(text);
      read += 1;
      expect(repositoryOf(reference)).toMatch(/^[A-Za-z0-9.:[\]-]+(?:\/[a-z0-9._-]+)+$/);
      expect(reference.path.split("/")).not.toContain("..");
      expect(parseImageReference(formatReference(reference))).toEqual(reference);
    } catch (thrown) {
      if (!(thrown instanceof CriError)) throw new Error(`round ${round}: ${JSON.stringify(text)}`, { cause: thrown });
      expect(thrown.message.length).toBeLessThan(600);
    }
  }
  expect(read).toBeGreaterThan(20);
});
