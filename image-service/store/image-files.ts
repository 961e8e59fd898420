import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import type { Logger } from "../../cri-api/index.ts";
import { NewerSchemaError } from "../../native/index.ts";
import { type Digest, digestFileName } from "../digest.ts";
import type { ImageHost } from "../host.ts";
import { type ImageRecord, parseImageRecord } from "./image-record.ts";

/** Image records on disk, a JSON file each. */
export interface ImageFiles {
  /**
   * Reads all; sets aside what is corrupt, and removes images that `isWhole` denies and writes that never ended.
   *
   * @throws {NewerSchemaError} where a newer Berth has written.
   */
  load(isWhole: (record: ImageRecord) => boolean): Promise<readonly ImageRecord[]>;
  read(id: Digest): Promise<ImageRecord | undefined>;
  write(record: ImageRecord): Promise<void>;
  remove(id: Digest): Promise<void>;
}

export interface ImageFilesParts {
  readonly directory: string;
  readonly host: ImageHost;
  readonly log: Logger;
}

const suffix = ".json";
const maxRecordBytes = 32 << 20;

export function createImageFiles({ directory, host, log }: ImageFilesParts): ImageFiles {
  const pathOf = (id: Digest): string => join(directory, `${digestFileName(id)}${suffix}`);

  async function readPath(path: string): Promise<ImageRecord | undefined> {
    const bytes = await host.readFileBounded(path, maxRecordBytes);
    return bytes === undefined ? undefined : parseImageRecord(bytes);
  }
  async function loadOne(name: string, isWhole: (record: ImageRecord) => boolean): Promise<ImageRecord | undefined> {
    const path = join(directory, name);
    try {
      const record = await readPath(path);
      if (record === undefined || isWhole(record)) return record;
      log.warn({ imageId: record.id }, "image has lost layers, it will have to be pulled again");
      await rm(path);
    } catch (thrown) {
      if (thrown instanceof NewerSchemaError) throw thrown;
      log.warn({ file: name, error: String(thrown) }, "image record cannot be read, setting it aside");
      await rename(path, `${path}.corrupt`);
    }
    return undefined;
  }

  return {
    async load(isWhole) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const records: ImageRecord[] = [];
      for (const name of await readdir(directory)) {
        if (name.startsWith(".")) await rm(join(directory, name), { force: true });
        const record = !name.startsWith(".") && name.endsWith(suffix) ? await loadOne(name, isWhole) : undefined;
        if (record !== undefined) records.push(record);
      }
      return records;
    },
    read: (id) => readPath(pathOf(id)),
    write: (record) => host.writeFileAtomically(pathOf(record.id), JSON.stringify(record)),
    remove: (id) => rm(pathOf(id), { force: true }),
  };
}
