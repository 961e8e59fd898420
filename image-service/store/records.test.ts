import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { NewerSchemaError } from "../../native/index.ts";
import { digestOf } from "../digest.ts";
import { readRootfsLayers, rootfsHome } from "../rootfs-mount.ts";
import { parseImageRecord } from "./image-record.ts";
import { parseLayerRecord } from "./layer-record.ts";

const directory = join(import.meta.dirname, "testdata");
const read = (file: string): Promise<Buffer> => readFile(join(directory, "v1", file));
const [lower, upper] = [digestOf("lower", undefined), digestOf("upper", undefined)];

describe("a record of schema 1", () => {
  test.each(["image.json", "image-without-type.json"])("is still read: %s", async (file) => {
    const record = parseImageRecord(await read(file));
    expect(record).toMatchObject({ type: "image", names: [{ repository: "docker.io/library/busybox", tag: "1" }] });
    expect(record.layers.map(({ diffId }) => diffId)).toEqual([lower, upper]);
  });
  test("is still read: artifact.json", async () => {
    const { type, id, layers } = parseImageRecord(await read("artifact.json"));
    expect([type, layers.map(({ diffId }) => diffId)]).toEqual(["artifact", [id]]);
  });
  test("is still read: layer.json", async () => {
    expect(parseLayerRecord(await read("layer.json"))).toMatchObject({
      diffId: lower,
      usedBytes: 8192,
      isDurable: true,
    });
  });
  test("is still read: rootfs.json", async () => {
    expect(await readRootfsLayers(rootfsHome(directory, "v1"))).toEqual([upper, lower]);
  });
  test("is there of every kind", async () => {
    expect(await readdir(join(directory, "v1"))).toHaveLength(5);
  });
});

test.each([
  ["image.json", parseImageRecord],
  ["layer.json", parseLayerRecord],
])("a %s of a newer schema is refused by name, not taken for broken", async (file, parse) => {
  const newer = (await read(file)).toString().replace(/"schemaVersion": ?1/, '"schemaVersion":2,"more":true');
  expect(() => parse(Buffer.from(newer))).toThrow(NewerSchemaError);
});
