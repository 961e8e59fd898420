import * as v from "valibot";

import { NewerSchemaError, refuseNewerSchema } from "../../native/index.ts";
import { type Digest, isDigest } from "../digest.ts";

/** What is known of an unpacked layer; `layer.json` beside its files. */
export interface LayerInfo {
  readonly diffId: Digest;
  /** Blocks on disk. */
  readonly usedBytes: number;
  readonly inodes: number;
  readonly uncompressedBytes: number;
}

/** A layer's file on disk. */
export interface LayerRecord extends LayerInfo {
  readonly schemaVersion: 1;
  /** The boot that unpacked it: until it is durable, its files are only as good as that boot's page cache. */
  readonly bootId: string;
  readonly isDurable: boolean;
}

const schemaVersion = 1;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const schema = v.object({
  schemaVersion: v.literal(schemaVersion),
  diffId: v.custom<Digest>((value) => typeof value === "string" && isDigest(value)),
  usedBytes: count,
  inodes: count,
  uncompressedBytes: count,
  bootId: v.string(),
  isDurable: v.boolean(),
});

/** The record in `bytes`, or undefined if there is none to be read. @throws {NewerSchemaError} */
export function parseLayerRecord(bytes: Uint8Array | undefined): LayerRecord | undefined {
  if (bytes === undefined) return undefined;
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    refuseNewerSchema(json, schemaVersion);
    return v.parse(schema, json);
  } catch (thrown) {
    if (thrown instanceof NewerSchemaError) throw thrown;
    return undefined;
  }
}
