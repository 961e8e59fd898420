import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { appendFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { type berth, Code, CriError, type cri, type Init, toCriError } from "../cri-api/index.ts";
import * as native from "../native/index.ts";
import { createImageService, type ImageService } from "./index.ts";
import { hostPlatform } from "./platform.ts";
import type { PullLimits } from "./registry/limits.ts";
import {
  createTestCall,
  createTestLogger,
  makeArtifact,
  makeImage,
  makeTar,
  noTrust,
  sha256,
  type TestEntry,
  type TestImage,
  registryFilesIn,
} from "./testing.ts";

// In memory: what is written through at the end of each test would else wait for all that the machine has to write.
let scratch: string;
let cleanup: AsyncDisposableStack;

beforeEach(async () => {
  scratch = await mkdtemp("/dev/shm/berth-archive-");
  cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
});
afterEach(async () => {
  await cleanup.disposeAsync();
});

async function openService(name = "root", limits: Partial<PullLimits> = {}): Promise<ImageService> {
  const registries = registryFilesIn(join(scratch, "etc"));
  const config = { root: join(scratch, name), registries, trust: noTrust(scratch), workerIdleMs: 200, limits };
  return cleanup.use(await createImageService({ config, log: createTestLogger(), host: native }));
}

function leftovers(name = "root"): string[] {
  return ["images", "layers", "imports"].flatMap((folder) => {
    const path = join(scratch, name, folder);
    return existsSync(path) ? readdirSync(path) : [];
  });
}

type Options = Partial<Init<berth.ImportOptions>>;

async function* requestsOf(archive: Buffer, options: Options): AsyncGenerator<berth.ImportImagesRequest> {
  const whole = { name: "", platform: "", allPlatforms: false, ...options } as berth.ImportOptions;
  yield { options: whole, chunk: Buffer.alloc(0) };
  for (let offset = 0; offset < archive.length; offset += 100_000)
    yield { options: null, chunk: archive.subarray(offset, offset + 100_000) };
}

async function gather<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function importAll(
  service: ImageService,
  archive: Buffer,
  options: Options = {},
  signal?: AbortSignal,
): Promise<Init<berth.ImportImagesResponse>[]> {
  return await gather(service.importImages(createTestCall(signal), requestsOf(archive, options)));
}

async function exportAll(service: ImageService, ...images: string[]): Promise<Buffer> {
  return await exportWith(service, { images, allPlatforms: false });
}

async function exportWith(service: ImageService, request: berth.ExportImagesRequest): Promise<Buffer> {
  const pieces = await gather(service.exportImages(createTestCall(), request));
  return Buffer.concat(pieces.map(({ chunk }) => chunk ?? Buffer.alloc(0)));
}

async function list(service: ImageService): Promise<readonly Init<cri.Image>[]> {
  return (await service.listImages(createTestCall(), { filter: null })).images ?? [];
}

async function failure(work: Promise<unknown>): Promise<CriError> {
  const thrown: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (thrown instanceof CriError) return thrown;
  throw new Error(`expected a CriError, got ${String(thrown)}`);
}

const base: TestEntry[] = [
  { name: "etc/", type: "5" },
  { name: "etc/passwd", content: "root:x:0:0::/:/bin/sh\n" },
  { name: "etc/group", type: "2", link: "passwd" },
];
const tars = [makeTar(base), makeTar([{ name: "data", content: "x".repeat(300_000) }])];
const image = makeImage(tars);
const other = makeImage([makeTar(base)], { config: { User: "7" } });
const name = "registry.example/team/app:1";

const hex = (digest: string): string => digest.replace("sha256:", "");
const blobs = (images: readonly TestImage[]): TestEntry[] =>
  [...new Map(images.flatMap((each) => [...each.blobs, [sha256(each.manifest), each.manifest] as const]))].map(
    ([digest, content]) => ({ name: `blobs/sha256/${hex(digest)}`, content }),
  );
const descriptor = (each: TestImage, extra: object = {}): object => ({
  mediaType: each.mediaType,
  digest: sha256(each.manifest),
  size: each.manifest.length,
  ...extra,
});
const named = (text: string): object => ({ annotations: { "io.containerd.image.name": text } });
const json = (path: string, value: unknown): TestEntry => ({ name: path, content: JSON.stringify(value) });
const index = (manifests: readonly object[]): TestEntry => json("index.json", { schemaVersion: 2, manifests });
const layout = (images: readonly TestImage[], ...manifests: object[]): Buffer =>
  makeTar([json("oci-layout", { imageLayoutVersion: "1.0.0" }), ...blobs(images), index(manifests)]);

/** What `docker save` wrote before it knew OCI: a folder a layer, equal layers as links to the first. */
function legacyArchive(
  items: readonly { image: TestImage; layers: readonly Buffer[]; tags: readonly string[] }[],
): Buffer {
  const seen = new Map<Buffer, string>();
  const entries: TestEntry[] = [];
  const manifest = items.map(({ image: each, layers, tags }, item) => {
    const config = each.blobs.get(each.id);
    entries.push({ name: `${hex(each.id)}.json`, content: config ?? "" });
    const paths = layers.map((tar, layer) => {
      const path = `${item}${layer}/layer.tar`;
      const first = seen.get(tar);
      entries.push({ name: `${item}${layer}/`, type: "5" });
      entries.push(first === undefined ? { name: path, content: tar } : { name: path, type: "2", link: `../${first}` });
      seen.set(tar, seen.get(tar) ?? path);
      return path;
    });
    return { Config: `${hex(each.id)}.json`, RepoTags: tags.length === 0 ? null : tags, Layers: paths };
  });
  return makeTar([...entries, json("manifest.json", manifest)]);
}

const foreign = makeImage([tars[0] ?? Buffer.alloc(0)], { architecture: "s390x" });
const absent = makeImage([tars[1] ?? Buffer.alloc(0)], { architecture: "riscv64" });
const platform = (architecture: string): object => ({ platform: { os: "linux", architecture } });
const multi = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [
      descriptor(absent, platform("riscv64")),
      descriptor(foreign, platform("s390x")),
      descriptor(image, platform(hostPlatform().architecture)),
      descriptor(other, { platform: { os: "unknown", architecture: "unknown" } }),
    ],
  }),
);
const nested = makeTar([
  ...blobs([image, foreign]),
  { name: `blobs/sha256/${hex(sha256(multi))}`, content: multi },
  index([
    {
      mediaType: "application/vnd.oci.image.index.v1+json",
      digest: sha256(multi),
      size: multi.length,
      ...named(name),
    },
  ]),
]);

describe("an archive is imported:", () => {
  test("a legacy docker archive of two images that share a layer", async () => {
    const service = await openService();
    const archive = legacyArchive([
      { image, layers: tars, tags: [name, "busybox"] },
      { image: makeImage([tars[1] ?? Buffer.alloc(0)]), layers: tars.slice(1), tags: ["shared:2"] },
    ]);
    const imported = await importAll(service, archive);
    expect(imported.map(({ names }) => names)).toEqual([
      [name, "docker.io/library/busybox:latest"],
      ["docker.io/library/shared:2"],
    ]);
    expect(imported[0]?.imageId).toBe(image.id);
    expect(readdirSync(join(scratch, "root/layers")).length).toBe(2);
    expect(leftovers().length).toBe(4);
    expect(service.resolveImage("busybox")?.id).toBe(image.id);
    const again = await importAll(service, legacyArchive([{ image, layers: tars, tags: ["third:1"] }]));
    expect(again.map(({ names }) => names)).toEqual([["docker.io/library/third:1"]]); // not all that it is called
  });

  test.each([
    ["plain", (tar: Buffer) => tar],
    ["gzip", gzipSync],
    ["zstd", zstdCompressSync],
  ])("an OCI layout, %s", async (_, compress) => {
    const service = await openService();
    const archive = compress(layout([image], descriptor(image, named(name))));
    expect(await importAll(service, archive)).toEqual([
      { imageId: image.id, names: [name], platform: expect.stringContaining("linux/") as string },
    ]);
    const [stored] = await list(service);
    expect(stored?.repoDigests).toEqual([`registry.example/team/app@${sha256(image.manifest)}`]);
  });

  test("of an index in an OCI layout, the image for this machine", async () => {
    const service = await openService();
    expect((await importAll(service, nested)).map(({ imageId }) => imageId)).toEqual([image.id]);
    expect((await list(service))[0]?.repoDigests).toEqual([`registry.example/team/app@${sha256(multi)}`]);
  });
  test("of an index, the platform that was asked for, if the archive has it", async () => {
    const service = await openService();
    expect(await importAll(service, nested, { platform: "linux/s390x" })).toMatchObject([
      { imageId: foreign.id, names: [name], platform: "linux/s390x" },
    ]);
    const error = await failure(importAll(service, nested, { platform: "linux/riscv64" }));
    expect(error.message).toContain(`it lacks "blobs/sha256/${hex(sha256(absent.manifest))}"`);
    expect((await failure(importAll(service, nested, { platform: "linux/ppc64le" }))).message).toContain(
      "no image for",
    );
    expect((await failure(importAll(service, nested, { platform: "linux" }))).message).toContain("is no platform");
  });
  test("of an index, all platforms that the archive has; the tag stands for this machine's", async () => {
    const service = await openService();
    const imported = await importAll(service, nested, { allPlatforms: true });
    expect(imported.map(({ imageId, names }) => [imageId, names])).toEqual([
      [foreign.id, [`registry.example/team/app@${sha256(foreign.manifest)}`]],
      [image.id, [name]],
    ]);
  });

  test("under the caller's name, or under tags below it", async () => {
    const service = await openService();
    const tagOnly = { annotations: { "org.opencontainers.image.ref.name": "v3" } };
    await importAll(service, layout([image], descriptor(image, tagOnly)), { name: "team/app" });
    await importAll(service, layout([other], descriptor(other)), { name: "team/other:5" });
    await importAll(service, layout([other], descriptor(other)), { name: "team/last" });
    expect((await list(service)).flatMap(({ repoTags }) => repoTags ?? []).toSorted()).toEqual([
      "docker.io/team/app:v3",
      "docker.io/team/last:latest",
      "docker.io/team/other:5",
    ]);
  });
});

describe("what is exported", () => {
  test("comes back as the same images in another store, layers and ids to the byte", async () => {
    const [first, second] = [await openService("first"), await openService("second")];
    await importAll(first, layout([image, other], descriptor(image, named(name)), descriptor(other, named("other:2"))));
    const archive = await exportAll(first, name, "other:2", image.id);
    const imported = await importAll(second, archive);
    expect(imported.map(({ imageId, names }) => [imageId, names])).toEqual([
      [image.id, [name]],
      [other.id, ["docker.io/library/other:2"]],
    ]);
    for (const tar of tars) expect(archive.includes(tar)).toBe(true);
    expect((await exportAll(second, name, "other:2")).equals(archive)).toBe(true);
  });

  test("names only what was asked for by name, and all tags of what was asked for by id", async () => {
    const service = await openService();
    await importAll(service, legacyArchive([{ image, layers: tars, tags: ["a:1", "b:2"] }]));
    const names = async (text: string): Promise<unknown> => {
      const other = await openService(`other-${text}`.replaceAll(/\W/g, ""));
      return (await importAll(other, await exportAll(service, text))).map((each) => each.names);
    };
    expect(await names("b:2")).toEqual([["docker.io/library/b:2"]]);
    expect(await names(hex(image.id).slice(0, 12))).toEqual([["docker.io/library/a:1", "docker.io/library/b:2"]]);
  });

  test("is rebuilt from layers whose members took each other's place", async () => {
    const [first, second] = [await openService("first"), await openService("second")];
    const twice = makeTar([
      { name: "f", content: "1" },
      { name: "f", content: "two" },
    ]);
    const changing = makeImage([twice]);
    await importAll(first, layout([changing], descriptor(changing, named(name))));
    const archive = await exportAll(first, name);
    expect(archive.includes(twice)).toBe(true);
    expect((await importAll(second, archive))[0]?.imageId).toBe(changing.id);
  });

  test("may have digests of another algorithm, whose blobs have long names", async () => {
    const [first, second] = [await openService("first"), await openService("second")];
    const sha512 = (data: Uint8Array | string): string => `sha512:${createHash("sha512").update(data).digest("hex")}`;
    const [tar = Buffer.alloc(0)] = tars;
    const { architecture } = hostPlatform();
    const config = JSON.stringify({ os: "linux", architecture, rootfs: { type: "layers", diff_ids: [sha512(tar)] } });
    const blob = (mediaType: string, content: Uint8Array | string): object => ({
      mediaType: `application/vnd.oci.image.${mediaType}`,
      digest: sha512(content),
      size: content.length,
    });
    const manifest = JSON.stringify({
      schemaVersion: 2,
      config: blob("config.v1+json", config),
      layers: [blob("layer.v1.tar", tar)],
    });
    const files = [config, manifest, tar].map((content): TestEntry => {
      const path = `blobs/${sha512(content).replace(":", "/")}`;
      return { name: path.slice(0, 100), content, pax: { path } };
    });
    await importAll(first, makeTar([...files, index([{ ...blob("manifest.v1+json", manifest), ...named(name) }])]));
    const archive = await exportAll(first, name);
    expect((await importAll(second, archive))[0]?.imageId).toBe(sha512(config));
    await writeFile(join(scratch, "long.tar"), archive);
    const argv = ["/usr/bin/tar", "-tf", join(scratch, "long.tar")] as const;
    const { stdout } = await native.run({ argv: [...argv], env: {}, signal: AbortSignal.timeout(30_000) });
    expect(stdout.toString("utf8").split("\n")).toContain(`blobs/${sha512(tar).replace(":", "/")}`);
  });

  test("is all platforms of a name, under one index, where that is asked for", async () => {
    const [first, second, third] = [await openService("1"), await openService("2"), await openService("3")];
    await importAll(first, nested, { allPlatforms: true });
    await importAll(first, layout([other], descriptor(other, named("other:2"))));
    const archive = await exportWith(first, { images: ["other:2", name], allPlatforms: true });
    const imported = await importAll(second, archive, { allPlatforms: true });
    expect(imported.map(({ imageId, names, platform }) => [imageId, names?.[0]?.split("@")[0], platform])).toEqual([
      [other.id, "docker.io/library/other:2", expect.stringContaining("linux/") as string],
      [image.id, name, expect.stringContaining("linux/") as string],
      [foreign.id, "registry.example/team/app", "linux/s390x"],
    ]);
    expect((await exportWith(second, { images: ["other:2", name], allPlatforms: true })).equals(archive)).toBe(true);
    expect((await importAll(third, archive)).map(({ imageId }) => imageId)).toEqual([other.id, image.id]);
    const alone = await exportWith(second, { images: [name], allPlatforms: true });
    const chosen = await importAll(third, alone, { platform: "linux/s390x" });
    expect(chosen).toMatchObject([{ imageId: foreign.id, names: [name] }]);
  });
  test("is all platforms also where they came one after the other, or the store was opened again", async () => {
    const service = await openService();
    await importAll(service, nested, { platform: "linux/s390x" });
    await importAll(service, nested);
    const archive = await exportWith(service, { images: [name], allPlatforms: true });
    const before = await openService("other");
    const imported = await importAll(before, archive, { allPlatforms: true });
    expect(imported.map(({ imageId }) => imageId)).toEqual([image.id, foreign.id]);
    await before[Symbol.asyncDispose]();
    const again = await openService("other");
    expect((await exportWith(again, { images: [name], allPlatforms: true })).equals(archive)).toBe(true);
    expect((await exportAll(again, name)).includes(foreign.id)).toBe(false);
  });

  const artifact = makeArtifact([
    { title: "model/weights.bin", content: "w".repeat(600_000) },
    { title: "README.md", content: "read me" },
    { title: "empty.json", content: "{}" },
  ]);

  test("may be an artifact, as it is, beside images", async () => {
    const [first, second] = [await openService("first"), await openService("second")];
    const entries = [descriptor(artifact, named("models/a:1")), descriptor(image, named(name))];
    await importAll(first, layout([artifact, image], ...entries));
    const archive = await exportAll(first, "models/a:1", name);
    expect(await importAll(second, archive)).toMatchObject([
      { imageId: artifact.id, names: ["docker.io/models/a:1"], platform: "" },
      { imageId: image.id },
    ]);
    for (const blob of artifact.blobs.values()) expect(archive.includes(blob)).toBe(true);
    const file = join(scratch, "second/layers", `sha256-${hex(artifact.id)}`, "diff/README.md");
    expect(readFileSync(file, "utf8")).toBe("read me");
    const look = async (): Promise<unknown> =>
      (await gather(second.verifyImages(createTestCall(), { images: ["models/a:1"], repair: false }))).map(
        ({ outcome }) => outcome,
      );
    expect(await look()).toEqual(["whole"]);
    await writeFile(file, "read it");
    expect(await look()).toEqual(["damaged"]);
    const error = await failure(exportAll(second, "models/a:1"));
    expect(error).toMatchObject({ code: Code.DataLoss, message: expect.stringContaining("README.md") as string });
  });

  test("is no artifact of which a blob was not kept", async () => {
    const service = await openService();
    const nameless = makeArtifact([{ title: "a", content: "a" }, { content: "b" }]);
    await importAll(service, layout([nameless], descriptor(nameless, named(name))));
    const error = await failure(exportAll(service, name));
    expect(error.code).toBe(Code.FailedPrecondition);
    expect(error.message).toContain(`(${sha256("b")}) is no named file, and was not kept`);
  });

  test("is not what an earlier version unpacked, until it is pulled again", async () => {
    const service = await openService();
    await importAll(service, layout([image], descriptor(image, named(name))));
    await rm(join(scratch, "root/layers", `sha256-${hex(sha256(tars[1] ?? ""))}`, "skeleton.gz"));
    const error = await failure(exportAll(service, name));
    expect(error.code).toBe(Code.FailedPrecondition);
    expect(error.message).toContain("remove the image and pull it again");
  });

  test("fails where a layer is not what was unpacked, and for images that are not there", async () => {
    const service = await openService();
    await importAll(service, layout([image], descriptor(image, named(name))));
    const path = join(scratch, "root/layers", `sha256-${hex(sha256(tars[1] ?? ""))}`, "diff/data");
    await appendFile(path, "more");
    const error = await failure(exportAll(service, name));
    expect(error.code).toBe(Code.DataLoss);
    expect(error.message).toContain('file "data" has changed its size');
    expect((await failure(exportAll(service, "absent:1"))).code).toBe(Code.NotFound);
    expect((await failure(exportAll(service))).code).toBe(Code.InvalidArgument);
  });
});

const badConfig = Buffer.from("{}");
const withLayer = (layer: Buffer): TestImage => makeImage([layer]);
const evil = withLayer(makeTar([{ name: "../escape", content: "x" }]));
const lying = makeImage(tars, { diffIds: [sha256("one"), sha256("two")] });
const swapped = blobs([image]).map((entry, position) =>
  position === 0 ? { ...entry, content: "other bytes" } : entry,
);
const root = (each: TestImage): TestEntry => index([descriptor(each, named(name))]);

describe("an archive is refused, and nothing of it is left:", () => {
  test.each<[string, Buffer, string, Options?]>([
    ["no archive", Buffer.from("hello, world".repeat(100)), "malformed"],
    ["an empty one", Buffer.alloc(0), "it is empty"],
    ["a tar of something else", makeTar([{ name: "README", content: "x" }]), "neither index.json nor manifest.json"],
    ["one that was cut", layout([image], descriptor(image, named(name))).subarray(0, -1536), "in the middle"],
    ["a layer that climbs out", layout([evil], descriptor(evil, named(name))), '".."'],
    ["a member that climbs out", makeTar([{ name: "../../x", content: "x" }, index([])]), '".."'],
    ["a link that climbs out", makeTar([{ name: "a/l", type: "2", link: "../../x" }, index([])]), "leads out of it"],
    ["a link in a circle", makeTar([{ name: "index.json", type: "2", link: "index.json" }]), "leads to itself"],
    ["two members of one name", makeTar([index([]), index([])]), "two members called"],
    ["a blob of another digest", makeTar([...swapped, root(image)]), "has"],
    ["layers that are not the config's", layout([lying], descriptor(lying, named(name))), "the image config says"],
    ["a missing layer", makeTar([...blobs([image]).slice(1), root(image)]), "it lacks"],
    ["a missing manifest", makeTar([root(image)]), "it lacks"],
    ["no image at all", layout([]), "it has no image"],
    ["an image without a name", layout([image], descriptor(image)), "has no name"],
    [
      "a tag without a name",
      layout([image], descriptor(image, { annotations: { "org.opencontainers.image.ref.name": "1" } })),
      "--name",
    ],
    ["a name that is none", layout([image], descriptor(image, named("a//b"))), "invalid image reference"],
    ["a name with another digest", layout([image], descriptor(image, named(`app@${sha256("x")}`))), "another image"],
    [
      "two images of one name",
      layout([image, other], descriptor(image, named(name)), descriptor(other, named(name))),
      "are called",
    ],
    [
      "one name for two images",
      layout([image, other], descriptor(image), descriptor(other)),
      "one name was given",
      { name: "a:1" },
    ],
    [
      "a config that is none",
      makeTar([{ name: "c.json", content: badConfig }, json("manifest.json", [{ Config: "c.json", Layers: [] }])]),
      "cannot be used",
    ],
    [
      "a config of another digest",
      makeTar([
        { name: `${"0".repeat(64)}.json`, content: badConfig },
        json("manifest.json", [{ Config: `${"0".repeat(64)}.json`, Layers: [] }]),
      ]),
      "has the digest",
    ],
    ["a manifest.json that is no list", makeTar([json("manifest.json", {})]), "malformed"],
    ["an index.json that is no JSON", makeTar([{ name: "index.json", content: "{" }]), "not JSON"],
    [
      "a manifest over 4 MiB",
      makeTar([{ name: "manifest.json", content: Buffer.alloc(5 << 20, 0x20) }]),
      "larger than",
    ],
    [
      "an image for another machine",
      layout(
        [makeImage([], { architecture: "s390x" })],
        descriptor(makeImage([], { architecture: "s390x" }), named(name)),
      ),
      "is for linux/s390x",
    ],
  ])("%s", async (_, archive, text, options) => {
    const service = await openService();
    const error = await failure(importAll(service, archive, options));
    expect(error.message).toContain(text);
    expect(error.message).not.toContain(scratch);
    expect(error.code).toBe(Code.InvalidArgument);
    expect(await list(service)).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  test("one that is larger than allowed, as it comes or when it is decompressed", async () => {
    const service = await openService("root", { archiveBytes: 1 << 20 });
    for (const bomb of [Buffer.alloc(2 << 20), gzipSync(Buffer.alloc(64 << 20))])
      expect((await failure(importAll(service, bomb))).message).toContain("it is larger than 1048576 bytes");
    expect(leftovers()).toEqual([]);
  });

  test("one of more members than allowed, whatever they are", async () => {
    const service = await openService("root", { layerEntries: 100 });
    const folders = Array.from({ length: 100 }, (_, index) => ({ name: `d${index}/`, type: "5" }));
    const archive = makeTar([...folders, { name: "f" }]);
    expect((await failure(importAll(service, archive))).message).toContain("it has more than 100 members");
    expect(leftovers()).toEqual([]);
  });

  test("one whose second image is bad: the first does not come either", async () => {
    const service = await openService();
    const archive = layout([image, evil], descriptor(image, named(name)), descriptor(evil, named("evil:1")));
    await failure(importAll(service, archive));
    expect(leftovers()).toEqual([]);
  });

  test("one for whose second image there is no room: what was told of the first stays true", async () => {
    const service = await openService();
    await mkdir(join(scratch, "root/images", `sha256-${hex(other.id)}.json`)); // nothing can be put in its place
    const archive = layout([image, other], descriptor(image, named(name)), descriptor(other, named("other:1")));
    const told: unknown[] = [];
    const work = (async () => {
      const images = service.importImages(createTestCall(), requestsOf(archive, {}));
      for await (const { imageId } of images) told.push(imageId);
    })();
    await failure(work.catch((thrown: unknown) => Promise.reject(toCriError(thrown))));
    expect(told).toEqual([image.id]);
    expect((await list(service)).map(({ id }) => id)).toEqual(told);
    expect(readdirSync(join(scratch, "root/imports"))).toEqual([]);
  });

  test("one whose sender goes away", async () => {
    const service = await openService();
    const left = new AbortController();
    async function* half(): AsyncGenerator<berth.ImportImagesRequest> {
      yield { options: null, chunk: layout([image], descriptor(image, named(name))).subarray(0, 10_000) };
      left.abort(new CriError(Code.Canceled, "the caller went away"));
      left.signal.throwIfAborted();
    }
    const error = await failure(gather(service.importImages(createTestCall(left.signal), half())));
    expect(error.code).toBe(Code.Canceled);
    expect(leftovers()).toEqual([]);
  });
});
