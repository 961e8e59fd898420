import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { Code, type cri } from "../cri-api/index.ts";
import * as native from "../native/index.ts";
import { createImageService, type ImageService } from "./index.ts";
import {
  createTestCall,
  createTestLogger,
  type FakeRegistry,
  makeImage,
  makeTar,
  noTrust,
  startFakeRegistry,
  type TestImage,
  writeRegistries,
} from "./testing.ts";

let scratch: string;
let registry: FakeRegistry;
let service: ImageService;
let cleanup: AsyncDisposableStack;

beforeEach(async () => {
  cleanup = new AsyncDisposableStack();
  scratch = await mkdtemp(join(tmpdir(), "berth-formats-"));
  cleanup.defer(() => rm(scratch, { recursive: true, force: true }));
  registry = cleanup.use(await startFakeRegistry());
  const config = {
    root: join(scratch, "root"),
    registries: await writeRegistries(join(scratch, "etc"), { [registry.host]: { insecure: true } }),
    trust: noTrust(scratch),
    retry: { attempts: 1, baseDelayMs: 1, maxDelayMs: 1, idleTimeoutMs: 2000 },
    workerIdleMs: 200,
  };
  service = cleanup.use(await createImageService({ config, log: createTestLogger(), host: native }));
});
afterEach(async () => {
  await cleanup.disposeAsync();
});

async function pull(name: string, auth: cri.AuthConfig | null = null): Promise<string> {
  const { imageRef } = await service.pullImage(createTestCall(), {
    image: { image: name, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" },
    auth,
    sandboxConfig: null,
  });
  return imageRef ?? "";
}

/** The pieces that formats for lazy pulling compress apart: an entry each. */
function* pieces(tar: Buffer): Generator<Buffer> {
  for (let offset = 0; offset < tar.length; offset += 1024) yield tar.subarray(offset, offset + 1024);
}

/** A gzip member for each entry, and an empty one at the end that says where the table of contents is. */
function estargz(tar: Buffer): Buffer {
  const footer = Buffer.from(
    `1f8b08040000000000ff1a0053471600${Buffer.from("0000000000000400STARGZ").toString("hex")}010000ffff0000000000000000`,
    "hex",
  );
  return Buffer.concat([...[...pieces(tar)].map((piece) => gzipSync(piece)), footer]);
}

function skippable(content: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50, 0);
  header.writeUInt32LE(content.length, 4);
  return Buffer.concat([header, content]);
}

/** A zstd frame for each entry, then the table of contents and a footer in frames that decoders skip. */
function zstdChunked(tar: Buffer): Buffer {
  const frames = [...pieces(tar)].map((piece) => zstdCompressSync(piece));
  const contents = zstdCompressSync(Buffer.from('{"version":1,"entries":[]}'));
  return Buffer.concat([...frames, skippable(contents), skippable(Buffer.from("0".repeat(56) + "GNUlInUx"))]);
}

describe.each([
  ["eStargz", estargz, "gzip"],
  ["zstd:chunked", zstdChunked, "zstd"],
])("a layer in the format %s", (_, compress, suffix) => {
  test("is an ordinary layer", async () => {
    const tar = makeTar([
      { name: "a", content: "first" },
      { name: "b", content: "second" },
      { name: "stargz.index.json", content: '{"version":1,"entries":[]}' },
    ]);
    const image = makeImage([tar], { compress, layerType: `application/vnd.oci.image.layer.v1.tar+${suffix}` });
    registry.push("a/b", "1", image);
    expect(await pull(`${registry.host}/a/b:1`)).toBe(image.id);
    const target = join(scratch, "rootfs");
    await service.createRootfs("c1", image.id, target);
    cleanup.defer(() => service.removeRootfs("c1", target, AbortSignal.timeout(10_000)));
    expect(await readFile(join(target, "b"), "utf8")).toBe("second");
  });
});

describe("a foreign layer", () => {
  const layerType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
  const image = makeImage([makeTar([{ name: "a", content: "foreign" }])], { layerType });

  test("comes from the registry, which often has it", async () => {
    registry.push("a/b", "1", image);
    expect(await pull(`${registry.host}/a/b:1`)).toBe(image.id);
  });

  /** The registry lacks the layer, a second host has what `answer` gives; both ask for a password first. */
  async function elsewhere(answer: (blob: Buffer) => Buffer, more: readonly string[] = []): Promise<TestImage> {
    const other = cleanup.use(await startFakeRegistry());
    const tar = makeTar([{ name: "a", content: "foreign" }]);
    const at = (path: string): string => `http://${other.host}/${path}`;
    const named = makeImage([tar], { layerType, urls: [...more, at("moved")] });
    const digest = named.layers[0]?.digest ?? "";
    registry.push("a/b", "1", named);
    registry.intercept = ({ request, response, proceed }) => {
      if (request.headers.authorization === undefined)
        response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end();
      else if (request.url?.includes(digest)) response.writeHead(404).end();
      else proceed();
    };
    other.intercept = ({ request, response }) => {
      asked.push(request);
      if (request.url === "/moved") response.writeHead(302, { location: at("blob"), "set-cookie": "a=b" }).end();
      else response.writeHead(200).end(answer(named.blobs.get(digest) ?? Buffer.alloc(0)));
    };
    return named;
  }
  const asked: IncomingMessage[] = [];
  const secret = {
    username: "u",
    password: "s3cret",
    auth: "",
    serverAddress: "",
    identityToken: "",
    registryToken: "",
  };

  test("comes from where the image says if the registry lacks it, and no secret goes there", async () => {
    const named = await elsewhere((blob) => blob, ["ftp://x.example/a", "file:///etc/passwd", "no address"]);
    expect(await pull(`${registry.host}/a/b:1`, secret)).toBe(named.id);
    expect(asked.map(({ url }) => url)).toEqual(["/moved", "/blob"]);
    for (const { headers } of asked)
      expect(Object.keys(headers).toSorted()).toEqual(["accept", "connection", "host", "user-agent"]);
  });

  test("is held against its digest wherever it comes from", async () => {
    await elsewhere((blob) => Buffer.alloc(blob.length, "x"));
    await expect(pull(`${registry.host}/a/b:1`, secret)).rejects.toMatchObject({ code: Code.DataLoss });
    expect(await readdir(join(scratch, "root/layers"))).toEqual([]);
  });

  test.each(["http://u:p@127.0.0.1:1/a", "gopher://127.0.0.1/a"])("is not looked for at %s", async (url) => {
    const named = makeImage([makeTar([{ name: "a", content: "foreign" }])], { layerType, urls: [url] });
    const digest = named.layers[0]?.digest ?? "";
    registry.push("a/b", "1", named);
    registry.intercept = ({ request, response, proceed }) => {
      if (request.url?.includes(digest)) response.writeHead(404).end();
      else proceed();
    };
    const refusal = await pull(`${registry.host}/a/b:1`).catch((thrown: unknown) => thrown);
    expect(refusal).toMatchObject({ code: Code.NotFound, message: expect.stringContaining("(a foreign one)") });
    expect(refusal).toMatchObject({ message: expect.not.stringContaining("127.0.0.1:1") });
  });
});
