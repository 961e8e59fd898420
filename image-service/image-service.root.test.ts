import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { chown, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { zstdCompressSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Code, type cri, CriError, type Init } from "../cri-api/index.ts";
import * as native from "../native/index.ts";
import { createImageService, type ImageService } from "./index.ts";
import {
  createTestCall,
  createTestLogger,
  freePort,
  makeArtifact,
  makeImage,
  makeTar,
  pushToRegistry,
  sha256,
  startDockerRegistry,
  startFakeRegistry,
  type TestEntry,
  type TestImage,
  noTrust,
  type TestRegistry,
  type TestRule,
  writeRegistries,
} from "./testing.ts";

const emptyAuth = { username: "", password: "", auth: "", serverAddress: "", identityToken: "", registryToken: "" };
const fastRetry = { attempts: 3, baseDelayMs: 5, maxDelayMs: 200, idleTimeoutMs: 2000 };

let scratch: string;
let cleanup: AsyncDisposableStack;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "berth-images-"));
  cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
});
afterEach(async () => {
  await cleanup.disposeAsync();
});

async function openService(rules: Readonly<Record<string, TestRule>>, log = createTestLogger()): Promise<ImageService> {
  const registries = await writeRegistries(join(scratch, "etc"), rules);
  const config = {
    root: join(scratch, "root"),
    registries,
    trust: noTrust(scratch),
    retry: fastRetry,
    workerIdleMs: 200,
  };
  return cleanup.use(await createImageService({ config, log, host: native }));
}

async function pull(
  service: ImageService,
  image: string,
  options: { auth?: Partial<cri.AuthConfig>; signal?: AbortSignal } = {},
): Promise<string> {
  const request = {
    image: { image, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" },
    auth: options.auth === undefined ? null : { ...emptyAuth, ...options.auth },
    sandboxConfig: null,
  };
  const { imageRef } = await service.pullImage(createTestCall(options.signal), request);
  return imageRef ?? "";
}

const spec = (image: string): cri.ImageSpec => ({
  image,
  annotations: {},
  userSpecifiedImage: "",
  runtimeHandler: "",
  imageRef: "",
});

async function status(service: ImageService, image: string): Promise<Init<cri.Image> | null | undefined> {
  return (await service.imageStatus(createTestCall(), { image: spec(image), verbose: false })).image;
}

async function list(service: ImageService): Promise<readonly Init<cri.Image>[]> {
  const { images } = await service.listImages(createTestCall(), { filter: null });
  return images ?? [];
}

async function remove(service: ImageService, image: string): Promise<void> {
  await service.removeImage(createTestCall(), { image: spec(image) });
}

async function failure(work: Promise<unknown>): Promise<CriError> {
  const thrown: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (thrown instanceof CriError) return thrown;
  throw new Error(`expected a CriError, got ${String(thrown)}`);
}

/** What the store holds on disk, without its own skeleton. */
function leftovers(): string[] {
  return ["images", "layers", "containers"].flatMap((folder) =>
    readdirSync(join(scratch, "root", folder)).map((name) => join(folder, name)),
  );
}

/** What `du` counts below folders of the store. */
async function diskUsage(...folders: readonly string[]): Promise<number> {
  const argv = ["/usr/bin/du", "-sc", "--block-size=1", ...folders.map((name) => join(scratch, "root", name))] as const;
  const { stdout } = await native.run({ argv, env: {}, signal: AbortSignal.timeout(10_000) });
  return Number(/^(\d+)\ttotal$/m.exec(stdout.toString("utf8"))?.[1]);
}

const passwd: TestEntry[] = [
  { name: "etc/", type: "5" },
  { name: "etc/passwd", content: "root:x:0:0::/:/bin/sh\n" },
];
/** A file that compresses badly, another one for each seed. */
const bulk = (seed: number, bytes = 2_000_000): TestEntry[] => {
  const content = Buffer.alloc(bytes);
  for (let index = 0; index < bytes; index += 1) content[index] = Math.imul(index, 2654435761 * seed) >>> 24;
  return [{ name: `data${seed}`, content }];
};

/** The contract of pulling: the same against the fake registry and against the real one. */
describe.each([
  ["the fake registry", startFakeRegistry],
  ["docker-registry", startDockerRegistry],
])("pulling from %s", (_, startRegistry: () => Promise<TestRegistry>) => {
  let registry: TestRegistry;
  let service: ImageService;
  beforeEach(async () => {
    registry = cleanup.use(await startRegistry());
    service = await openService({
      [registry.host]: { insecure: true },
      "registry.example": { mirrors: ["127.0.0.1:1", registry.host] },
    });
    cleanup.use({ [Symbol.asyncDispose]: () => service[Symbol.asyncDispose]() });
  });

  test("an image is there under its id and every spelling of its name", async () => {
    const image = makeImage([makeTar(passwd), makeTar(bulk(3))], { config: { User: "1002" } });
    await pushToRegistry(registry, "team/app:latest", image);
    expect(await pull(service, `${registry.host}/team/app`)).toBe(image.id);
    const hex = image.id.slice(7);
    const found = await status(service, image.id);
    expect(found).toMatchObject({ id: image.id, repoTags: [`${registry.host}/team/app:latest`], pinned: false });
    expect(found?.size).toBeGreaterThan(500_000n);
    const [digest = ""] = found?.repoDigests ?? [];
    for (const spelling of [
      hex,
      hex.slice(0, 3),
      `${registry.host}/team/app`,
      `${registry.host}/team/app:latest`,
      digest,
    ])
      expect(await status(service, spelling)).toEqual(found);
    expect(await list(service)).toEqual([found]);
    expect(await status(service, `${registry.host}/team/app:other`)).toBeUndefined();
  });

  test("Docker images, zstd and plain layers, indexes and images of no layer", async () => {
    const docker = makeImage([makeTar(passwd)], { docker: true });
    const zstd = makeImage([makeTar(bulk(5))], {
      compress: (tar) => Buffer.concat([zstdCompressSync(tar.subarray(0, 9999)), zstdCompressSync(tar.subarray(9999))]),
      layerType: "application/vnd.oci.image.layer.v1.tar+zstd",
    });
    const plain = makeImage([makeTar(bulk(7))], {
      compress: (tar) => tar,
      layerType: "application/vnd.oci.image.layer.v1.tar",
    });
    const scratchImage = makeImage([]);
    for (const [name, image] of Object.entries({ docker, zstd, plain, scratch: scratchImage })) {
      await pushToRegistry(registry, `kinds/${name}:v1`, image);
      expect(await pull(service, `${registry.host}/kinds/${name}:v1`)).toBe(image.id);
    }
    expect((await status(service, scratchImage.id))?.size).toBeGreaterThan(0n);
    await service.createRootfs("scratch", scratchImage.id, join(scratch, "m"));
    expect(readdirSync(join(scratch, "m"))).toEqual([]);
    await service.removeRootfs("scratch", join(scratch, "m"), AbortSignal.timeout(5000));
  });

  test("an index gives this machine's image, and its own digest is the one that is told", async () => {
    const ours = makeImage([makeTar(passwd)]);
    const foreign = makeImage([makeTar(bulk(9))], { architecture: "s390x" });
    const digest = await pushToRegistry(registry, "multi/app:v1", ours, [foreign, ours]);
    expect(await pull(service, `${registry.host}/multi/app:v1`)).toBe(ours.id);
    expect((await status(service, ours.id))?.repoDigests).toEqual([`${registry.host}/multi/app@${digest}`]);
  });

  test("an index in an index is followed, but not for ever", async () => {
    const ours = makeImage([makeTar(bulk(8))]);
    const mediaType = "application/vnd.oci.image.index.v1+json";
    let below = { mediaType: ours.mediaType, digest: await pushToRegistry(registry, "nested/app:v0", ours), size: 1 };
    for (let depth = 1; depth <= 5; depth += 1) {
      const manifests = [{ ...below, platform: { os: "linux", architecture: ours.architecture } }];
      const body = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
      await registry.putManifest("nested/app", `v${depth}`, mediaType, body);
      below = { mediaType, digest: sha256(body), size: body.length };
    }
    expect(await pull(service, `${registry.host}/nested/app:v4`)).toBe(ours.id);
    await remove(service, ours.id);
    expect((await failure(pull(service, `${registry.host}/nested/app:v5`))).message).toContain("more than 4 deep");
  });

  test("an artifact is its named files, under the digest of its manifest", async () => {
    const model = Buffer.alloc(300_000, "weights");
    const artifact = makeArtifact([
      { title: "model/weights.bin", content: model },
      { title: "readme", content: "" },
      { content: "a blob without a name is no file" },
      { content: "by path", annotations: { "org.cncf.model.filepath": "by-path" } },
    ]);
    await pushToRegistry(registry, "team/model:v1", artifact);
    const name = `${registry.host}/team/model:v1`;
    expect(await pull(service, name)).toBe(artifact.id);
    expect(await pull(service, name)).toBe(artifact.id);
    expect(await status(service, name)).toMatchObject({ id: artifact.id, repoTags: [name] });
    expect(service.resolveImage(name)).toMatchObject({ type: "artifact" });
    const [layer = ""] = readdirSync(join(scratch, "root/layers"));
    const at = (path: string): string => join(scratch, "root/layers", layer, "diff", path);
    expect(readdirSync(at("")).toSorted()).toEqual(["by-path", "model", "readme"]);
    expect(readFileSync(at("model/weights.bin")).equals(model)).toBe(true);
    expect(lstatSync(at("readme")).mode & 0o7777).toBe(0o644);
    await remove(service, name);
    expect(leftovers()).toEqual([]);
  });

  test("by digest there is a digest and no tag, by both the digest decides", async () => {
    const image = makeImage([makeTar(passwd)]);
    const digest = await pushToRegistry(registry, "team/app:v1", image);
    expect(await pull(service, `${registry.host}/team/app:ignored@${digest}`)).toBe(image.id);
    const found = await status(service, `${registry.host}/team/app@${digest}`);
    expect(found?.repoTags).toEqual([]);
    expect(found?.repoDigests).toEqual([`${registry.host}/team/app@${digest}`]);
  });

  test("several names of one image are one image; removing it by one name removes them all", async () => {
    const image = makeImage([makeTar(passwd)]);
    for (const tag of ["1", "2", "3"]) await pushToRegistry(registry, `team/tags:${tag}`, image);
    await Promise.all(["1", "2", "3"].map((tag) => pull(service, `${registry.host}/team/tags:${tag}`)));
    const [only, ...others] = await list(service);
    expect(others).toEqual([]);
    expect(only?.repoTags?.toSorted()).toEqual(["1", "2", "3"].map((tag) => `${registry.host}/team/tags:${tag}`));
    await remove(service, `${registry.host}/team/tags:2`);
    expect(await list(service)).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  test("a tag that moves leaves the old image without it", async () => {
    const [old, fresh] = [makeImage([makeTar(passwd)]), makeImage([makeTar(bulk(2))])];
    await pushToRegistry(registry, "team/moving:v1", old);
    await pull(service, `${registry.host}/team/moving:v1`);
    await pushToRegistry(registry, "team/moving:v1", fresh);
    expect(await pull(service, `${registry.host}/team/moving:v1`)).toBe(fresh.id);
    const left = await status(service, old.id);
    expect(left?.repoTags).toEqual([]);
    expect(left?.repoDigests).toHaveLength(1);
    expect((await status(service, `${registry.host}/team/moving:v1`))?.id).toBe(fresh.id);
  });

  test("mirrors are asked in order, and the name stays the user's", async () => {
    const image = makeImage([makeTar(passwd)]);
    await pushToRegistry(registry, "team/app:v1", image);
    expect(await pull(service, "registry.example/team/app:v1")).toBe(image.id);
    expect((await status(service, image.id))?.repoTags).toEqual(["registry.example/team/app:v1"]);
  });

  test("an absent image is NotFound and leaves nothing", async () => {
    const error = await failure(pull(service, `${registry.host}/team/absent:v1`));
    expect(error.code).toBe(Code.NotFound);
    expect(error.message).toContain(`host "${registry.host}": not found`);
    expect(leftovers()).toEqual([]);
  });

  test("five removals at once all succeed, and the image is gone after each", async () => {
    const image = makeImage([makeTar(bulk(4))]);
    await pushToRegistry(registry, "team/app:v1", image);
    await pull(service, `${registry.host}/team/app:v1`);
    const removals = [image.id, `${registry.host}/team/app:v1`, image.id, image.id, `${registry.host}/team/app:v1`];
    await Promise.all(
      removals.map(async (name) => {
        await remove(service, name);
        expect(await status(service, name)).toBeUndefined();
        expect(leftovers()).toEqual([]);
      }),
    );
  });

  test("a deadline that passes is told as such and leaves nothing", async () => {
    const image = makeImage([makeTar(bulk(6))]);
    await pushToRegistry(registry, "team/app:v1", image);
    const late = pull(service, `${registry.host}/team/app:v1`, { signal: AbortSignal.timeout(1) });
    await expect(late).rejects.toThrow(expect.objectContaining({ name: "TimeoutError" }));
    await service[Symbol.asyncDispose]();
    expect(leftovers()).toEqual([]);
  });

  test("layers that images share are stored once, and go with the last image", async () => {
    const base = makeTar(bulk(8));
    const images = [makeImage([base, makeTar(passwd)]), makeImage([makeTar(bulk(1)), base])];
    for (const [index, image] of images.entries()) await pushToRegistry(registry, `team/s${index}:v1`, image);
    const ids = await Promise.all(images.map((_image, index) => pull(service, `${registry.host}/team/s${index}:v1`)));
    expect(readdirSync(join(scratch, "root/layers"))).toHaveLength(3);
    await remove(service, ids[0] ?? "");
    expect(readdirSync(join(scratch, "root/layers"))).toHaveLength(2);
    await remove(service, ids[1] ?? "");
    expect(leftovers()).toEqual([]);
  });
});

describe("a registry that misbehaves", () => {
  let registry: Awaited<ReturnType<typeof startFakeRegistry>>;
  let image: TestImage;
  let service: ImageService;
  let name: string;

  beforeEach(async () => {
    registry = cleanup.use(await startFakeRegistry());
    image = makeImage([makeTar(bulk(11)), makeTar(passwd)]);
    registry.push("team/app", "v1", image);
    service = await openService({ [registry.host]: { insecure: true } });
    name = `${registry.host}/team/app:v1`;
  });

  const isBlob = (url: string | undefined, digest = image.layers[0]?.digest): boolean =>
    (url ?? "").endsWith(digest ?? "");
  const requestsOf = (path: string): number => registry.requests.filter(({ line }) => line.includes(path)).length;

  test.each([
    [401, Code.Unauthenticated, "authentication required (401)"],
    [403, Code.PermissionDenied, "access denied (403)"],
    [404, Code.NotFound, "not found (404)"],
    [418, Code.Unavailable, "unexpected answer (418)"],
    [429, Code.ResourceExhausted, "too many requests (429)"],
    [500, Code.Unavailable, "server error (500)"],
    [503, Code.Unavailable, "server error (503)"],
  ])("answering %i is told by code and text", async (statusCode, code, text) => {
    registry.intercept = ({ response }) => {
      response.writeHead(statusCode, { "retry-after": "0" }).end("<html>secret trace</html>");
    };
    const error = await failure(pull(service, name));
    expect(error.code).toBe(code);
    expect(error.message).toContain(text);
    expect(error.message).not.toContain("secret");
    expect(leftovers()).toEqual([]);
  });

  test("a refused connection is RegistryUnavailable under Unknown, which kubelet reads", async () => {
    const port = await freePort();
    const error = await failure(pull(service, `127.0.0.1:${port}/a:b`));
    expect(error.code).toBe(Code.Unknown);
    expect(error.message).toMatch(/^RegistryUnavailable: /);
  });

  test("plain HTTP is not spoken to a host that is not marked insecure", async () => {
    const strict = await createImageService({
      config: {
        root: join(scratch, "strict"),
        registries: await writeRegistries(join(scratch, "strict-etc"), {}),
        trust: noTrust(scratch),
        retry: fastRetry,
        workerIdleMs: 100,
      },
      log: createTestLogger(),
      host: native,
    });
    cleanup.use(strict);
    expect((await failure(pull(strict, name))).message).toContain("TLS");
    expect(registry.requests).toEqual([]);
  });

  test("503 and 429 are waited out, within bounds", async () => {
    let refusals = 2;
    registry.intercept = ({ request, response, proceed }) => {
      if (refusals > 0 && request.url?.includes("manifests")) {
        refusals -= 1;
        response.writeHead(refusals === 1 ? 503 : 429, { "retry-after": "0" }).end();
      } else proceed();
    };
    expect(await pull(service, name)).toBe(image.id);
  });

  test("a blob cut half-way goes on by Range, and the digest holds over the whole", async () => {
    const blob = image.blobs.get(image.layers[0]?.digest ?? "") ?? Buffer.alloc(0);
    registry.intercept = ({ request, response, proceed }) => {
      if (!isBlob(request.url) || request.headers.range !== undefined) return proceed();
      response.writeHead(200, { "content-length": blob.length });
      response.write(blob.subarray(0, blob.length >> 1), () => response.destroy());
    };
    expect(await pull(service, name)).toBe(image.id);
    expect(registry.requests.some(({ headers }) => /^bytes=[1-9]\d*-$/.test(headers.range ?? ""))).toBe(true);
  });

  test("a registry that ignores Range is read from the start again", async () => {
    const blob = image.blobs.get(image.layers[0]?.digest ?? "") ?? Buffer.alloc(0);
    let tries = 0;
    registry.intercept = ({ request, response, proceed }) => {
      if (!isBlob(request.url)) return proceed();
      tries += 1;
      response.writeHead(200, { "content-length": blob.length });
      if (tries < 3) response.write(blob.subarray(0, tries * 20_000), () => response.destroy());
      else response.end(blob);
    };
    expect(await pull(service, name)).toBe(image.id);
  });

  test("a blob that never arrives whole ends in an error, with nothing left", async () => {
    registry.intercept = ({ request, response, proceed }) => {
      if (!isBlob(request.url)) return proceed();
      response.writeHead(200, { "content-length": 1_000_000 });
      response.write("half", () => response.destroy());
    };
    const error = await failure(pull(service, name));
    expect(error.code).toBe(Code.Unavailable);
    expect(error.message).toContain(image.layers[0]?.digest);
    expect(requestsOf(image.layers[0]?.digest ?? "")).toBeLessThanOrEqual(4);
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ["another content", (blob: Buffer) => Buffer.from(blob).fill(1, blob.length - 20, blob.length - 10)],
    ["a longer content", (blob: Buffer) => Buffer.concat([blob, Buffer.alloc(100)])],
    ["nothing but zeros", (blob: Buffer) => Buffer.alloc(blob.length)],
  ])("a blob of %s than its digest says is refused", async (_, spoil) => {
    for (const { digest } of image.layers)
      registry.putBlob("team/app", digest, spoil(image.blobs.get(digest) ?? Buffer.alloc(0)));
    expect((await failure(pull(service, name))).code).toBe(Code.DataLoss);
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ["../outside", /cannot be called/],
    ["a/../../b", /cannot be called/],
    ["a/.wh.b", /cannot be called/],
    ["/", /cannot be called/],
    ["a\nb", /cannot be called/],
    ["same", /two files/],
    ["folder", /a file and a folder/],
    ["long/".repeat(300), /cannot be called/],
    [undefined, /nor an artifact with named files/],
  ])("an artifact with a file called %j is refused, with nothing left", async (title, text) => {
    const file = { content: "x", ...(title === undefined ? {} : { title }) };
    const more = { same: [file], folder: [{ ...file, title: "folder/below/x" }] }[title ?? ""] ?? [];
    registry.push("team/app", "v1", makeArtifact([file, ...more]));
    expect((await failure(pull(service, name))).message).toMatch(text);
    expect(leftovers()).toEqual([]);
  });

  test("an artifact with a file that is not what its digest says is refused, with nothing left", async () => {
    const artifact = makeArtifact([{ title: "file", content: "as it was" }]);
    registry.push("team/app", "v1", artifact);
    registry.putBlob("team/app", sha256(Buffer.from("as it was")), Buffer.from("otherwise"));
    expect((await failure(pull(service, name))).code).toBe(Code.DataLoss);
    expect(leftovers()).toEqual([]);
  });

  test("a layer that unpacks to another diffID than the config says is refused", async () => {
    const liar = makeImage([makeTar(passwd)], { diffIds: [`sha256:${"0".repeat(64)}`] });
    registry.push("team/liar", "v1", liar);
    const error = await failure(pull(service, `${registry.host}/team/liar:v1`));
    expect(error.code).toBe(Code.DataLoss);
    expect(error.message).toContain("the image config says");
    expect(leftovers()).toEqual([]);
  });

  test("a hostile layer is refused, with nothing left", async () => {
    const hostile = makeImage([makeTar(bulk(12)), makeTar([{ name: "../escape", content: "x" }])]);
    registry.push("team/hostile", "v1", hostile);
    const error = await failure(pull(service, `${registry.host}/team/hostile:v1`));
    expect(error.code).toBe(Code.DataLoss);
    expect(error.message).toContain('".."');
    expect(error.message).not.toContain(scratch);
    expect(leftovers()).toEqual([]);
  });

  test.each([
    ["the wrong Content-Type", "text/html", undefined],
    ["a Content-Type that contradicts mediaType", "application/vnd.oci.image.index.v1+json", undefined],
    ["5 MiB", "application/vnd.oci.image.manifest.v1+json", Buffer.alloc(5 << 20, 0x20)],
  ])("a manifest of %s is refused", async (_, mediaType, body) => {
    registry.putManifest("team/app", "v1", mediaType, body ?? image.manifest);
    const error = await failure(pull(service, name));
    expect(error.code).toBe(Code.DataLoss);
    expect(leftovers()).toEqual([]);
  });

  test("a manifest that is not the digest asked for is refused", async () => {
    const digest = `sha256:${"1".repeat(64)}`;
    registry.intercept = ({ request, response, proceed }) => {
      if (!request.url?.includes(digest)) return proceed();
      response.writeHead(200, { "content-type": image.mediaType }).end(image.manifest);
    };
    const error = await failure(pull(service, `${registry.host}/team/app@${digest}`));
    expect(error.code).toBe(Code.DataLoss);
  });

  test("many callers of one image are one pull, and one may leave alone", async () => {
    const gate = Promise.withResolvers<void>();
    registry.intercept = ({ request, proceed }) => {
      if (isBlob(request.url)) void gate.promise.then(proceed);
      else proceed();
    };
    const leaver = new AbortController();
    const left = pull(service, name, { signal: leaver.signal });
    const stay = [1, 2, 3].map(() => pull(service, name));
    while (requestsOf(image.layers[0]?.digest ?? "") === 0) await sleep(5);
    leaver.abort(new Error("left"));
    await expect(left).rejects.toThrow("left");
    expect(service.pullsInProgress()).toMatchObject([
      { image: name, phase: "fetching", host: registry.host, layers: 2 },
    ]);
    gate.resolve();
    expect(await Promise.all(stay)).toEqual([image.id, image.id, image.id]);
    expect(service.pullsInProgress()).toEqual([]);
    expect(requestsOf("/manifests/v1")).toBe(1);
    for (const { digest } of image.layers) expect(requestsOf(digest)).toBe(1);
  });

  test("a long pull says in the log how far it has come, every 15 seconds and no longer than it lasts", async () => {
    await service[Symbol.asyncDispose]();
    const log = createTestLogger();
    service = await openService({ [registry.host]: { insecure: true } }, log);
    const gate = Promise.withResolvers<void>();
    registry.intercept = ({ request, proceed }) => {
      if (image.layers.some(({ digest }) => isBlob(request.url, digest))) void gate.promise.then(proceed);
      else proceed();
    };
    const told = (): object[] =>
      log.lines.filter(({ text }) => text === "image pull goes on").map(({ fields }) => fields);
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    cleanup.defer(() => void vi.useRealTimers());
    const pulled = pull(service, name);
    while (requestsOf(image.layers[0]?.digest ?? "") === 0) await sleep(5);
    vi.advanceTimersByTime(14_999);
    expect(told()).toEqual([]);
    vi.advanceTimersByTime(15_001);
    const layers = image.layers.map(({ digest }) => image.blobs.get(digest)?.length ?? 0);
    const progress = { image: name, phase: "fetching", host: registry.host, layers: 2, layersDone: 0 };
    const bytes = { totalBytes: layers.reduce((sum, size) => sum + size, 0), downloadedBytes: 0, unpackedBytes: 0 };
    const speed = { bytesPerSecond: 0, elapsedMs: expect.any(Number) as number };
    expect(told()).toEqual(Array.from({ length: 2 }, () => ({ ...progress, ...bytes, ...speed })));
    gate.resolve();
    await pulled;
    vi.advanceTimersByTime(60_000);
    expect(told().length).toBe(2);
    expect(log.lines.find(({ text }) => text === "image pulled")?.fields).toMatchObject({ image: name, layersDone: 2 });
  });

  test("a pull tells which host it asks: the one behind a mirror that has not the image, or not all of it", async () => {
    const mirror = cleanup.use(await startFakeRegistry());
    await service[Symbol.asyncDispose]();
    const rules = { [registry.host]: { insecure: true, mirrors: [mirror.host] }, [mirror.host]: { insecure: true } };
    service = await openService(rules);
    const held: (() => void)[] = [];
    registry.intercept = ({ proceed }) => void held.push(proceed);
    const hosts = (): string[] => service.pullsInProgress().map(({ phase, host }) => `${phase} ${host}`);
    const heldAt = async (told: string): Promise<void> => {
      await expect.poll(() => [held.length > 0, ...hosts()], { timeout: 20_000 }).toEqual([true, told]);
      while (held.length > 0) held.pop()?.();
    };
    const first = pull(service, name);
    await heldAt(`resolving ${registry.host}`);
    registry.intercept = ({ proceed }) => proceed();
    await first;

    await remove(service, name);
    mirror.push("team/app", "v1", image);
    const digests = image.layers.map(({ digest }) => digest);
    mirror.intercept = ({ request, response, proceed }) => {
      if (digests.some((digest) => isBlob(request.url, digest))) response.writeHead(404).end();
      else proceed();
    };
    registry.intercept = ({ proceed }) => void held.push(proceed);
    const second = pull(service, name);
    await heldAt(`fetching ${registry.host}`);
    registry.intercept = ({ proceed }) => proceed();
    await second;
  });

  test("when the last caller leaves, the download ends and nothing is left", async () => {
    registry.intercept = ({ request, response, proceed }) => {
      if (!isBlob(request.url)) return proceed();
      response.writeHead(200, { "content-length": 1_000_000 });
      response.write(Buffer.alloc(1000)); // and no more
    };
    const caller = new AbortController();
    const pulling = pull(service, name, { signal: caller.signal });
    while (requestsOf(image.layers[0]?.digest ?? "") === 0) await sleep(5);
    caller.abort(new Error("gone"));
    await expect(pulling).rejects.toThrow("gone");
    while (leftovers().length > 0) await sleep(5);
    registry.intercept = undefined;
    expect(await pull(service, name)).toBe(image.id);
  });

  test("one pull's failure is not another's: a follower of the same layer tries for itself", async () => {
    const gate = Promise.withResolvers<void>();
    registry.push("team/twin", "v1", image);
    registry.intercept = ({ request, response, proceed }) => {
      const isFirst = request.url?.includes("team/app/blobs") === true && isBlob(request.url);
      if (isFirst) void gate.promise.then(() => response.writeHead(403).end());
      else proceed();
    };
    const failing = failure(pull(service, name));
    while (requestsOf(`team/app/blobs/${image.layers[0]?.digest}`) === 0) await sleep(5);
    const following = pull(service, `${registry.host}/team/twin:v1`);
    while (requestsOf("team/twin/manifests") === 0) await sleep(5);
    gate.resolve();
    expect((await failing).code).toBe(Code.PermissionDenied);
    expect(await following).toBe(image.id);
  });

  test("a blob that two images in flight share is fetched once", async () => {
    const shared = makeTar([{ name: "shared", content: "in both" }]);
    const own = ["left", "right"].map((content) => makeTar([{ name: "own", content }]));
    const images = own.map((tar) => makeImage([shared, tar]));
    for (const [index, each] of images.entries()) registry.push(`team/own${index}`, "v1", each);
    const isOwnBlobAsked = (index: number): boolean =>
      requestsOf(`team/own${index}/blobs/${images[index]?.layers[1]?.digest}`) === 1;
    const gate = Promise.withResolvers<void>();
    registry.intercept = ({ request, proceed }) => {
      if (request.url?.includes(images[0]?.layers[0]?.digest ?? "?") === true) void gate.promise.then(proceed);
      else proceed();
    };
    const pulls = images.map((_, index) => pull(service, `${registry.host}/team/own${index}:v1`));
    while (!isOwnBlobAsked(0) || !isOwnBlobAsked(1)) await sleep(5); // both know by now which layers they need
    gate.resolve();
    expect(await Promise.all(pulls)).toEqual(images.map(({ id }) => id));
    expect(requestsOf(`/blobs/${images[0]?.layers[0]?.digest}`)).toBe(1);
  });

  test("an image that is there costs one request to be pulled again", async () => {
    await pull(service, name);
    registry.requests.length = 0;
    expect(await pull(service, name)).toBe(image.id);
    expect(registry.requests.map(({ line }) => line)).toEqual(["GET /v2/team/app/manifests/v1"]);
  });
});

describe("authentication", () => {
  let registry: Awaited<ReturnType<typeof startFakeRegistry>>;
  let tokenServer: Awaited<ReturnType<typeof startFakeRegistry>>;
  let image: TestImage;
  let name: string;

  beforeEach(async () => {
    registry = cleanup.use(await startFakeRegistry());
    tokenServer = cleanup.use(await startFakeRegistry());
    image = makeImage([makeTar(passwd)]);
    registry.push("team/app", "v1", image);
    name = `${registry.host}/team/app:v1`;
    tokenServer.intercept = ({ response }) => {
      response.writeHead(200, { "content-type": "application/json" }).end('{"token":"t0ken","expires_in":300}');
    };
  });
  const insecure = (): Record<string, TestRule> => ({
    [registry.host]: { insecure: true },
    [tokenServer.host]: { insecure: true },
  });
  const demand = (challenge: string, accepted: string): void => {
    registry.intercept = ({ request, response, proceed }) => {
      if (request.headers.authorization === accepted) proceed();
      else response.writeHead(401, { "www-authenticate": challenge }).end();
    };
  };
  const bearer = (): string =>
    `Bearer realm="http://${tokenServer.host}/token",service="reg",scope="repository:team/app:pull"`;
  const basicOf = (user: string, password: string): string =>
    `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;

  test("a token is fetched once with the credentials, and used for everything", async () => {
    demand(bearer(), "Bearer t0ken");
    const service = await openService(insecure());
    expect(await pull(service, name, { auth: { username: "u", password: "p" } })).toBe(image.id);
    expect(tokenServer.requests).toHaveLength(1);
    expect(tokenServer.requests[0]?.headers.authorization).toBe(basicOf("u", "p"));
    expect(tokenServer.requests[0]?.line).toBe("GET /token?service=reg&scope=repository%3Ateam%2Fapp%3Apull&account=u");
  });

  test("without credentials the token is an anonymous one", async () => {
    demand(bearer(), "Bearer t0ken");
    expect(await pull(await openService(insecure()), name)).toBe(image.id);
    expect(tokenServer.requests[0]?.headers.authorization).toBeUndefined();
  });

  test("an identity token is exchanged by POST", async () => {
    demand(bearer(), "Bearer t0ken");
    expect(await pull(await openService(insecure()), name, { auth: { identityToken: "id-token" } })).toBe(image.id);
    expect(tokenServer.requests[0]?.line).toBe("POST /token");
  });

  test("a registry token is used as it is", async () => {
    demand("Bearer realm=unused", "Bearer reg-token");
    expect(await pull(await openService(insecure()), name, { auth: { registryToken: "reg-token" } })).toBe(image.id);
    expect(tokenServer.requests).toEqual([]);
  });

  test.each([[{ username: "u", password: "p" }], [{ auth: Buffer.from("u:p").toString("base64") }]])(
    "basic authentication, from %o",
    async (auth) => {
      demand('Basic realm="reg"', basicOf("u", "p"));
      expect(await pull(await openService(insecure()), name, { auth })).toBe(image.id);
    },
  );

  test("credentials for another server are not sent, and a refusal does not repeat them", async () => {
    demand('Basic realm="reg"', basicOf("u", "p4ssw0rd"));
    const auth = { username: "u", password: "p4ssw0rd", serverAddress: "https://elsewhere.example/v1/" };
    const log = createTestLogger();
    const error = await failure(pull(await openService(insecure(), log), name, { auth }));
    expect(error.code).toBe(Code.Unauthenticated);
    expect(registry.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);
    expect(JSON.stringify([error.message, log.lines])).not.toContain("p4ssw0rd");
  });

  test("a foreign realm over plain HTTP gets no secret, and the error says why", async () => {
    demand(bearer(), "Bearer t0ken");
    const service = await openService({ [registry.host]: { insecure: true } });
    const error = await failure(pull(service, name, { auth: { username: "u", password: "p" } }));
    expect(error.message).toContain("not reached over TLS");
    expect(tokenServer.requests).toEqual([]);
  });

  test("a redirect to another host takes no credentials along", async () => {
    const storage = cleanup.use(await startFakeRegistry());
    storage.push("team/app", "v1", image);
    registry.intercept = ({ request, response, proceed }) => {
      if (request.headers.authorization !== basicOf("u", "p"))
        response.writeHead(401, { "www-authenticate": 'Basic realm="reg"' }).end();
      else if (request.url?.includes("/blobs/"))
        response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end();
      else proceed();
    };
    const service = await openService({ ...insecure(), [storage.host]: { insecure: true } });
    expect(await pull(service, name, { auth: { username: "u", password: "p" } })).toBe(image.id);
    expect(storage.requests.length).toBeGreaterThan(0);
    expect(storage.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  test("a redirect to plain HTTP is not followed unless that host is marked insecure", async () => {
    const storage = cleanup.use(await startFakeRegistry());
    registry.intercept = ({ response }) => {
      response.writeHead(302, { location: `http://${storage.host}/x` }).end();
    };
    const error = await failure(pull(await openService(insecure()), name));
    expect(error.message).toContain("without TLS");
    expect(storage.requests).toEqual([]);
  });

  test("endless redirects end", async () => {
    registry.intercept = ({ request, response }) => {
      response.writeHead(302, { location: `${request.url}x` }).end();
    };
    expect((await failure(pull(await openService(insecure()), name))).message).toContain("redirected more than");
  });

  test("a mirror never sees the credentials of the host", async () => {
    const service = await openService({ ...insecure(), "registry.example": { mirrors: [registry.host] } });
    await pull(service, "registry.example/team/app:v1", { auth: { username: "u", password: "p" } });
    expect(registry.requests.every(({ headers }) => headers.authorization === undefined)).toBe(true);
  });

  test("pulls with different credentials are different pulls", async () => {
    demand('Basic realm="reg"', basicOf("u", "p"));
    const service = await openService(insecure());
    const [good, bad] = await Promise.allSettled([
      pull(service, name, { auth: { username: "u", password: "p" } }),
      pull(service, name, { auth: { username: "u", password: "wrong" } }),
    ]);
    expect(good.status).toBe("fulfilled");
    expect(bad.status).toBe("rejected");
  });
});

describe("the store", () => {
  let registry: Awaited<ReturnType<typeof startFakeRegistry>>;
  let image: TestImage;
  let name: string;
  const layers = [
    makeTar([
      { name: "./", type: "5", mode: 0o711 },
      { name: "hidden", content: "x" },
      ...passwd,
      { name: "d/low", content: "low" },
    ]),
    makeTar([{ name: ".wh.hidden" }, { name: "d/.wh..wh..opq" }, { name: "d/high", content: "high" }]),
  ];

  beforeEach(async () => {
    registry = cleanup.use(await startFakeRegistry());
    image = makeImage(layers, { config: { Cmd: ["sh"], Env: ["A=b"] } });
    registry.push("team/app", "v1", image);
    name = `${registry.host}/team/app:v1`;
  });
  const insecure = (): Record<string, TestRule> => ({ [registry.host]: { insecure: true } });

  test("a root filesystem shows the layers as one tree and keeps writes to itself", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const [one, two] = [join(scratch, "one"), join(scratch, "two")];
    await service.createRootfs("c1", image.id, one);
    await service.createRootfs("c2", name, two);
    try {
      expect(readdirSync(one).toSorted()).toEqual(["d", "etc"]);
      expect(readdirSync(join(one, "d"))).toEqual(["high"]);
      await writeFile(join(one, "etc/passwd"), "changed");
      expect(readFileSync(join(two, "etc/passwd"), "utf8")).toContain("root:x:0:0");
      expect(lstatSync(one).mode & 0o7777).toBe(0o755);
    } finally {
      await service.removeRootfs("c1", one, AbortSignal.timeout(5000));
      await service.removeRootfs("c2", two, AbortSignal.timeout(5000));
    }
    await service.removeRootfs("c2", two, AbortSignal.timeout(5000));
    expect(readdirSync(join(scratch, "root/containers"))).toEqual([]);
    expect((await native.readMountTable()).filter(({ mountPoint }) => mountPoint.startsWith(scratch))).toEqual([]);
  });

  test("a root filesystem for a user namespace belongs to its root, and so does what is written there", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const userNamespace = join(scratch, "user");
    const range = [{ containerId: 0, hostId: 300_000, size: 65_536 }];
    await native.pinUserNamespace({ path: userNamespace, uidMappings: range, gidMappings: range });
    const [target, plain] = [join(scratch, "mapped"), join(scratch, "plain")];
    try {
      await service.createRootfs("c1", image.id, target, { owner: { userNamespace, uid: 300_000, gid: 300_000 } });
      await service.createRootfs("c2", image.id, plain);
      const owners = (path: string) => [lstatSync(path).uid, lstatSync(path).gid];
      for (const path of ["", "etc", "etc/passwd", "d/high"])
        expect(owners(join(target, path)), path).toEqual([300_000, 300_000]);
      await chown(join(target, "etc/passwd"), 300_007, 300_008); // copied up
      expect(owners(join(target, "etc/passwd"))).toEqual([300_007, 300_008]);
      expect(owners(join(scratch, "root/containers/c1/upper/etc/passwd"))).toEqual([300_007, 300_008]);
      expect(owners(join(plain, "etc/passwd"))).toEqual([0, 0]);
      const mounts = (await native.readMountTable()).map(({ mountPoint }) => mountPoint);
      expect(mounts.filter((point) => point.startsWith(`${scratch}/root`))).toEqual([]); // no layer stays mounted
    } finally {
      await service.removeRootfs("c1", target, AbortSignal.timeout(5000));
      await service.removeRootfs("c2", plain, AbortSignal.timeout(5000));
      await native.unpinNamespace(userNamespace);
    }
    expect(readdirSync(join(scratch, "root/containers"))).toEqual([]);
  });

  test("a file system that cannot map owners is named as the reason", async () => {
    const root = join(scratch, "root"); // on an overlay, which cannot
    await Promise.all(["root", "lower", "upper", "work"].map((folder) => mkdir(join(scratch, folder))));
    const layers = {
      lowerDirs: [join(scratch, "lower")],
      upperDir: join(scratch, "upper"),
      workDir: join(scratch, "work"),
    };
    await native.mountOverlay({ ...layers, target: root });
    cleanup.defer(() => native.unmount(root, { signal: AbortSignal.timeout(5000) }));
    const service = await openService(insecure());
    const plain = makeImage([makeTar(passwd)]); // an overlay takes no whiteouts
    registry.push("team/plain", "v1", plain);
    await pull(service, `${registry.host}/team/plain:v1`);
    const userNamespace = join(scratch, "user");
    const range = [{ containerId: 0, hostId: 300_000, size: 65_536 }];
    await native.pinUserNamespace({ path: userNamespace, uidMappings: range, gidMappings: range });
    cleanup.defer(() => native.unpinNamespace(userNamespace));
    const owner = { userNamespace, uid: 300_000, gid: 300_000 };
    const thrown = await failure(service.createRootfs("c1", plain.id, join(scratch, "m"), { owner }));
    expect(thrown).toMatchObject({
      code: Code.FailedPrecondition,
      message: expect.stringContaining("cannot map owners"),
    });
    expect(leftovers().filter((path) => path.startsWith("containers"))).toEqual([]);
  });

  test("layers that a killed daemon left mounted go with the root filesystem", async () => {
    const service = await openService(insecure());
    const mapped = join(scratch, "root/containers/c1/mapped");
    await mkdir(mapped, { recursive: true });
    await native.bindMount({ source: join(scratch, "root/layers"), target: mapped });
    await service.removeRootfs("c1", join(scratch, "m"), AbortSignal.timeout(5000));
    expect(leftovers()).toEqual([]);
    expect((await native.readMountTable()).filter(({ mountPoint }) => mountPoint.startsWith(scratch))).toEqual([]);
  });

  test("a container keeps its layers when the image is removed, and frees them when it goes", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const target = join(scratch, "m");
    await service.createRootfs("c1", image.id, target);
    await remove(service, image.id);
    expect(await status(service, image.id)).toBeUndefined();
    expect(readFileSync(join(target, "d/high"), "utf8")).toBe("high");
    await service.removeRootfs("c1", target, AbortSignal.timeout(5000));
    while (leftovers().length > 0) await sleep(5);
    expect((await failure(service.createRootfs("c2", image.id, target))).code).toBe(Code.NotFound);
  });

  test("a volume shows an image read-only, and its layers stay as long as the container has a root filesystem", async () => {
    const first = await openService(insecure());
    await pull(first, name);
    const artifact = makeArtifact([{ title: "weights", content: "1 2 3" }]);
    registry.push("team/model", "v1", artifact);
    await pull(first, `${registry.host}/team/model:v1`);
    const [root, tree, files] = [join(scratch, "root-fs"), join(scratch, "tree"), join(scratch, "files")];
    expect((await failure(first.mountVolume("c1", image.id, tree))).code).toBe(Code.NotFound);
    await first.createRootfs("c1", image.id, root);
    await first.mountVolume("c1", image.id, tree);
    await first.mountVolume("c1", artifact.id, files);
    try {
      expect(readdirSync(tree).toSorted()).toEqual(["d", "etc"]);
      expect(readFileSync(join(files, "weights"), "utf8")).toBe("1 2 3");
      await expect(writeFile(join(files, "weights"), "")).rejects.toMatchObject({ code: "EROFS" });
      await remove(first, artifact.id);
      await first[Symbol.asyncDispose]();
      const second = await openService(insecure());
      expect(readFileSync(join(files, "weights"), "utf8")).toBe("1 2 3");
      await native.unmount(files, { signal: AbortSignal.timeout(5000) });
      await native.unmount(tree, { signal: AbortSignal.timeout(5000) });
      await second.removeRootfs("c1", root, AbortSignal.timeout(5000));
      await remove(second, image.id);
      while (leftovers().length > 0) await sleep(5);
    } finally {
      for (const path of [files, tree, root]) await native.unmount(path, { signal: AbortSignal.timeout(5000) });
    }
  });

  test("a restart finds images, containers and nothing else", async () => {
    const first = await openService(insecure());
    await pull(first, name);
    const target = join(scratch, "m");
    await first.createRootfs("c1", image.id, target);
    const before = await list(first);
    await first[Symbol.asyncDispose]();
    await mkdir(join(scratch, "root/layers/.killed-in-the-middle/diff/x"), { recursive: true });
    await writeFile(join(scratch, "root/images/.x.json.abc.tmp"), "{");
    for (const layer of readdirSync(join(scratch, "root/layers")).filter((one) => !one.startsWith(".")))
      await writeFile(join(scratch, "root/layers", layer, ".layer.json.abc.tmp"), "{");

    const second = await openService(insecure());
    expect(await list(second)).toEqual(before);
    expect(second.rootfsIds()).toEqual(["c1"]);
    expect(second.resolveImage(name)?.config).toMatchObject({ cmd: ["sh"], env: ["A=b"] });
    expect(readdirSync(join(scratch, "root/layers"))).toHaveLength(2);
    const files = readdirSync(join(scratch, "root"), { recursive: true, encoding: "utf8" });
    expect(files.filter((path) => path.endsWith(".tmp"))).toEqual([]);
    await remove(second, image.id);
    expect(readFileSync(join(target, "d/high"), "utf8")).toBe("high");
    await second.removeRootfs("c1", target, AbortSignal.timeout(5000));
    while (leftovers().length > 0) await sleep(5);
  });

  test("a corrupt record is set aside with a warning, and its layers go", async () => {
    const first = await openService(insecure());
    await pull(first, name);
    await first[Symbol.asyncDispose]();
    const [record = ""] = readdirSync(join(scratch, "root/images"));
    await writeFile(
      join(scratch, "root/images", record),
      readFileSync(join(scratch, "root/images", record)).subarray(0, 99),
    );
    const log = createTestLogger();
    const second = await openService(insecure(), log);
    expect(await list(second)).toEqual([]);
    expect(log.lines.map(({ text }) => text)).toContain("image record cannot be read, setting it aside");
    expect(leftovers()).toEqual([`images/${record}.corrupt`]);
    expect(await pull(second, name)).toBe(image.id);
  });

  test.each(["images", "layers", "containers"])(
    "%s of a newer Berth are refused by name and left as they are",
    async (kind) => {
      const first = await openService(insecure());
      await pull(first, name);
      const target = join(scratch, "m");
      await first.createRootfs("c1", image.id, target);
      await first[Symbol.asyncDispose]();
      const [place = ""] = leftovers().filter((path) => path.startsWith(`${kind}/`));
      const records = { images: "", layers: "layer.json", containers: "rootfs.json" };
      const file = join(scratch, "root", place, records[kind as keyof typeof records]);
      const text = readFileSync(file, "utf8");
      const before = readdirSync(join(scratch, "root"), { recursive: true, encoding: "utf8" }).sort();
      await writeFile(file, text.replace('"schemaVersion":1', '"schemaVersion":2'));
      await expect(openService(insecure())).rejects.toThrow("state of schema 2 was written by a newer Berth");
      expect(readdirSync(join(scratch, "root"), { recursive: true, encoding: "utf8" }).sort()).toEqual(before);

      await writeFile(file, text);
      const second = await openService(insecure());
      expect(await list(second)).toHaveLength(1);
      await second.removeRootfs("c1", target, AbortSignal.timeout(5000));
    },
  );

  test("layers that a power cut may have torn are not trusted after it", async () => {
    const first = await openService(insecure());
    await pull(first, name);
    await first[Symbol.asyncDispose]();
    for (const layer of readdirSync(join(scratch, "root/layers"))) {
      const path = join(scratch, "root/layers", layer, "layer.json");
      const record = JSON.parse(readFileSync(path, "utf8")) as { isDurable: boolean };
      expect(record.isDurable).toBe(true); // written through before the service ended
      await writeFile(path, JSON.stringify({ ...record, bootId: "an earlier boot", isDurable: false }));
    }
    const second = await openService(insecure());
    expect(await list(second)).toEqual([]);
    expect(leftovers()).toEqual([]);
    expect(await pull(second, name)).toBe(image.id);
  });

  test("ImageFsInfo is what du counts, from memory", async () => {
    const service = await openService(insecure());
    const info = async (): Promise<bigint> => {
      const { imageFilesystems } = await service.imageFsInfo(createTestCall(), {});
      return BigInt(imageFilesystems?.[0]?.usedBytes?.value ?? -1);
    };
    expect(await info()).toBe(0n);
    const small = Array.from({ length: 500 }, (_, index) => ({ name: `d${index % 9}/f${index}`, content: `${index}` }));
    registry.push("team/big", "v1", makeImage([makeTar(bulk(13)), makeTar(small)]));
    await pull(service, `${registry.host}/team/big:v1`);
    const [used, counted] = [await info(), await diskUsage("images", "layers")];
    expect(Math.abs(Number(used) - counted)).toBeLessThan(counted / 100);
    await remove(service, `${registry.host}/team/big:v1`);
    expect(await info()).toBe(0n);
  });

  test("a damaged layer is found, and pulled again unless a container uses it", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const verify = async (repair: boolean): Promise<string[]> => {
      const found: string[] = [];
      const request = { images: [], repair };
      for await (const { outcome, detail } of service.verifyImages(createTestCall(), request))
        found.push(`${outcome} ${detail}`);
      return found;
    };
    expect(new Set(await verify(false))).toEqual(new Set(["whole "]));
    const before = leftovers();
    const layer = `sha256-${image.layers[0]?.diffId.slice(7)}`;
    const file = join(scratch, "root/layers", layer, "diff/etc/passwd");
    await writeFile(file, "evil:x:0:0::/:/bin/sh\n");
    expect((await verify(false)).join()).toMatch(/damaged its content has the digest sha256:/);

    const target = join(scratch, "m");
    await service.createRootfs("c1", image.id, target);
    expect((await verify(true)).join()).toContain("not repaired: a container uses it");
    await service.removeRootfs("c1", target, AbortSignal.timeout(5000));
    await expect.poll(() => service.rootfsIds()).toEqual([]);

    expect((await verify(true)).join()).toMatch(/repaired its content has the digest/);
    expect(new Set(await verify(false))).toEqual(new Set(["whole "]));
    expect(readFileSync(file, "utf8")).toContain("root:x:0:0");
    expect(leftovers()).toEqual(before);
  });

  test("a damaged layer that no registry has any more is told, and left", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const layer = `sha256-${image.layers[0]?.diffId.slice(7)}`;
    await writeFile(join(scratch, "root/layers", layer, "diff/etc/passwd"), "");
    registry.intercept = ({ response }) => void response.writeHead(404).end();
    const request = { images: [name], repair: true };
    const outcomes: unknown[] = [];
    for await (const found of service.verifyImages(createTestCall(), request)) outcomes.push(found);
    expect(outcomes[0]).toMatchObject({ outcome: "damaged", images: [image.id] });
    expect((outcomes[0] as { detail: string }).detail).toContain(registry.host);
    expect((await list(service)).length).toBe(1);
  });

  test("what a container writes is measured in the background", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const target = join(scratch, "m");
    await service.createRootfs("c1", image.id, target);
    try {
      expect(service.rootfsUsage("c1")?.usedBytes).toBe(4096n);
      expect(service.rootfsUsage("absent")).toBeUndefined();
    } finally {
      await service.removeRootfs("c1", target, AbortSignal.timeout(5000));
    }
  });

  test("a disk that fills up in the middle of a layer is told, and the store is as before", async () => {
    const root = join(scratch, "root");
    await mkdir(root);
    await native.mountTmpfs({ target: root, sizeBytes: 3 << 20, mode: 0o700 });
    try {
      const service = await openService(insecure());
      await pull(service, name);
      const before = [await list(service), leftovers()];
      registry.push("team/big", "v1", makeImage([makeTar(bulk(21)), makeTar(bulk(22)), makeTar(bulk(23))]));
      const error = await failure(pull(service, `${registry.host}/team/big:v1`));
      expect(error.code).toBe(Code.ResourceExhausted);
      expect(error.message).toContain("no space left");
      expect(error.message).not.toContain(scratch);
      expect([await list(service), leftovers()]).toEqual(before);
      await service[Symbol.asyncDispose]();
    } finally {
      await native.unmount(root, { signal: AbortSignal.timeout(5000) });
    }
  });

  test("storage is for root alone", async () => {
    await openService(insecure());
    for (const folder of ["", "images", "layers", "containers"])
      expect(lstatSync(join(scratch, "root", folder)).mode & 0o077).toBe(0);
  });

  test.each([[""], ["UPPER"], ["a:b:c"], ["x@sha256:12"]])(
    "the malformed name %j is InvalidArgument everywhere",
    async (bad) => {
      const service = await openService({});
      for (const call of [pull, status, remove])
        expect((await failure(call(service, bad))).code).toBe(Code.InvalidArgument);
    },
  );

  test("ids that are no file names reach no file", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    for (const id of ["../x", "", "a/b", "."])
      expect((await failure(service.createRootfs(id, image.id, join(scratch, "m")))).code).toBe(Code.InvalidArgument);
  });

  test("verbose status carries the image's own config", async () => {
    const service = await openService(insecure());
    await pull(service, name);
    const { info } = await service.imageStatus(createTestCall(), { image: spec(name), verbose: true });
    const parsed = JSON.parse(info?.["info"] ?? "{}") as { imageSpec: { config: { Cmd: string[] } } };
    expect(parsed.imageSpec.config.Cmd).toEqual(["sh"]);
  });
});
