import { describe, expect, test } from "vitest";

import { chooseManifest, type Manifest, mediaTypes, parseManifest } from "./manifest.ts";

const digest = `sha256:${"a".repeat(64)}`;
const other = `sha256:${"b".repeat(64)}`;
const config = { mediaType: "application/vnd.oci.image.config.v1+json", digest, size: 10 };
const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: other, size: 20 };
const image = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers: [layer] };

function parse(document: unknown, contentType: string = mediaTypes.ociManifest): Manifest {
  return parseManifest(Buffer.from(typeof document === "string" ? document : JSON.stringify(document)), contentType);
}

describe("parseManifest", () => {
  test("reads an image manifest, with or without its own mediaType", () => {
    expect(parse(image)).toEqual({ kind: "image", config, layers: [{ ...layer, urls: [] }] });
    const { mediaType: _, ...bare } = image;
    expect(parse(bare).kind).toBe("image");
  });

  test("reads a Docker image of plain, gzip and zstd layers", () => {
    const layers = ["tar", "tar.gzip", "tar.zstd"].map((kind) => ({
      ...layer,
      mediaType: `application/vnd.docker.image.rootfs.diff.${kind}`,
    }));
    const document = {
      schemaVersion: 2,
      config: { ...config, mediaType: "application/vnd.docker.container.image.v1+json" },
      layers,
    };
    expect(parse(document, mediaTypes.dockerManifest).kind).toBe("image");
  });

  test.each([
    ["not JSON", "{"],
    ["not an object", "[]"],
    ["null", "null"],
    ["invalid UTF-8", Buffer.from([0xff]).toString("latin1")],
    ["schema 1", { ...image, schemaVersion: 1 }],
    ["both manifests and layers", { ...image, manifests: [] }],
    ["both manifests and a config", { schemaVersion: 2, config, manifests: [] }],
    ["a mediaType that is not the Content-Type", { ...image, mediaType: mediaTypes.ociIndex }],
    ["a digest with slashes", { ...image, config: { ...config, digest: "sha256:../../etc/passwd" } }],
    ["a digest of another algorithm", { ...image, layers: [{ ...layer, digest: `md5:${"a".repeat(32)}` }] }],
    ["a size of 2^63", JSON.stringify(image).replace('"size":20', '"size":9223372036854775808')],
    ["a negative size", { ...image, layers: [{ ...layer, size: -1 }] }],
    ["a size with a fraction", { ...image, layers: [{ ...layer, size: 1.5 }] }],
    ["no config", { schemaVersion: 2, layers: [] }],
    ["layers that are no list", { ...image, layers: {} }],
    ["an encrypted layer", { ...image, layers: [{ ...layer, mediaType: `${layer.mediaType}+encrypted` }] }],
    ["an unknown layer type", { ...image, layers: [{ ...layer, mediaType: "text/html" }] }],
    ["an artifact", { ...image, config: { ...config, mediaType: "application/vnd.oci.empty.v1+json" } }],
  ])("refuses %s", (_, document) => {
    expect(() => parse(document)).toThrow(expect.objectContaining({ name: "RegistryFailure" }));
  });

  test.each([
    [
      "an encrypted layer",
      { ...image, layers: [{ ...layer, mediaType: `${layer.mediaType}+encrypted` }] },
      "is encrypted",
    ],
    ["schema 1", { schemaVersion: 1, fsLayers: [] }, "schema 1"],
  ])("says what it is that it refuses: %s", (_, document, why) => {
    expect(() => parse(document)).toThrow(why);
  });

  test("says where it is wrong in words that are short, and make nothing of a terminal", () => {
    const annotations = { [`\u001B[2J${"x".repeat(100_000)}`]: 5 };
    const artifact = { ...image, config: { ...config, mediaType: "text/x" }, layers: [{ ...layer, annotations }] };
    expect(() => parse(artifact)).toThrow(
      /^the manifest is malformed at "layers\.0\.annotations\.\\u001b\[2Jx{231}…": \w+$/,
    );
  });

  test("reads layers that are not to be distributed: registries have them often enough", () => {
    const layers = [
      { ...layer, mediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", urls: ["http://x/"] },
      { ...layer, mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls: ["http://x/"] },
    ];
    expect(parse({ ...image, layers }).kind).toBe("image");
  });

  test.each([["text/html"], [""], ["application/json"]])("refuses the Content-Type %j", (contentType) => {
    const { mediaType: _, ...bare } = image;
    expect(() => parse(bare, contentType)).toThrow("Content-Type");
  });
});

describe("chooseManifest", () => {
  const entry = (name: string, platform: object | undefined, mediaType: string = mediaTypes.ociManifest): object => ({
    mediaType,
    size: 1,
    digest: `sha256:${name.repeat(64)}`,
    platform,
  });
  const index = (...manifests: object[]): Manifest & { kind: "index" } => {
    const parsed = parse({ schemaVersion: 2, manifests }, mediaTypes.ociIndex);
    if (parsed.kind !== "index") throw new Error("not an index");
    return parsed;
  };
  const amd64 = { os: "linux", architecture: "amd64" };

  test("takes the entry for this platform, wherever it stands", () => {
    const chosen = chooseManifest(
      index(entry("a", { os: "linux", architecture: "arm64" }), entry("b", amd64), entry("c", amd64)),
      amd64,
    );
    expect(chosen.digest).toBe(`sha256:${"b".repeat(64)}`);
  });

  test("takes an index in it that is for this platform, if there is no manifest", () => {
    const nested = index(
      entry("a", { os: "linux", architecture: "arm64" }),
      entry("b", amd64, mediaTypes.ociIndex),
      entry("c", { os: "linux", architecture: "arm64" }, mediaTypes.ociIndex),
    );
    expect(chooseManifest(nested, amd64).digest).toBe(`sha256:${"b".repeat(64)}`);
  });

  test("passes over attestations, and over nested indexes beside a manifest", () => {
    const chosen = chooseManifest(
      index(
        entry("a", { os: "unknown", architecture: "unknown" }),
        entry("b", amd64, mediaTypes.ociIndex),
        entry("c", amd64),
      ),
      amd64,
    );
    expect(chosen.digest).toBe(`sha256:${"c".repeat(64)}`);
  });

  test("takes a single entry without a platform", () => {
    expect(chooseManifest(index(entry("d", undefined)), amd64).digest).toBe(`sha256:${"d".repeat(64)}`);
  });

  test("says so when nothing fits", () => {
    expect(() => chooseManifest(index(entry("a", { os: "linux", architecture: "s390x" })), amd64)).toThrow(
      "no image for linux/amd64",
    );
    expect(() => chooseManifest(index(), amd64)).toThrow("no image for linux/amd64");
  });

  test("and what there is instead, without attestations and without end", () => {
    const many = index(
      entry("a", { os: "linux", architecture: "arm64", variant: "v8" }),
      entry("b", { os: "unknown", architecture: "unknown" }),
      ...Array.from({ length: 20 }, (_, at) => entry("c", { os: "linux", architecture: `arch${at}` })),
    );
    const text =
      /^the index has no image for linux\/amd64, only for linux\/arm64\/v8, linux\/arch0, .*arch14 and 5 more$/;
    expect(() => chooseManifest(many, amd64)).toThrow(text);
  });

  test("in words that are short, and make nothing of a terminal", () => {
    const os = `\u001B[2J${"x".repeat(100_000)}`;
    const entry = { ...image.config, mediaType: mediaTypes.ociManifest, platform: { os, architecture: "a\nb" } };
    const index = parse({ schemaVersion: 2, manifests: [entry] }, mediaTypes.ociIndex);
    if (index.kind !== "index") throw new Error("no index");
    expect(() => chooseManifest(index, { os: "linux", architecture: "amd64" })).toThrow(
      /^the index has no image for linux\/amd64, only for \?\[2Jx{28}\/a\?b$/,
    );
  });

  test("an entry whose platform is null or empty has none", () => {
    for (const platform of [null, {}, { os: "", architecture: "" }])
      expect(chooseManifest(index(entry("d", platform as object)), amd64).digest).toBe(`sha256:${"d".repeat(64)}`);
  });
});
