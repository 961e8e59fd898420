import type { PullLimits } from "../registry/limits.ts";
import { LayerError } from "./layer-error.ts";
import { parsePaxNumber, parsePaxRecords, parsePaxTime } from "./pax.ts";
import { blockBytes, decodeText, type TarHeader } from "./tar-header.ts";

export type EntryKind = "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo";

/** One member of the archive, extended headers applied. */
export interface TarEntry {
  readonly kind: EntryKind;
  readonly name: string;
  readonly linkName: string;
  /** Permission bits, with set-uid, set-gid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeNs: bigint;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[];
}

export type TarLimits = Pick<PullLimits, "layerBytes" | "tarMetadataBytes">;

const kinds: Readonly<Partial<Record<string, EntryKind>>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo",
};

/** Members that describe the next one. */
export const metadataTypes: ReadonlySet<string> = new Set(["x", "g", "L", "K"]);
const maxId = 2 ** 32 - 2;
const xattrPrefix = "SCHILY.xattr.";

/** What extended headers say of one entry. */
export interface Extended {
  records: Map<string, Buffer>;
  longName: string | undefined;
  longLink: string | undefined;
  bytes: number;
}

function noExtension(globals: ReadonlyMap<string, Buffer>): Extended {
  return { records: new Map(globals), longName: undefined, longLink: undefined, bytes: 0 };
}

function textRecord(records: ReadonlyMap<string, Buffer>, key: string): string | undefined {
  const value = records.get(key);
  return value === undefined || value.length === 0 ? undefined : decodeText(value);
}

function idRecord(records: ReadonlyMap<string, Buffer>, key: string, fallback: number): number {
  const value = records.get(key);
  const id = value === undefined ? fallback : parsePaxNumber(value, key);
  if (id < 0 || id > maxId) throw new LayerError(`an owner in the layer is out of range: ${id}`);
  return id;
}

function kindOf(header: TarHeader, name: string): EntryKind {
  const kind = kinds[header.typeFlag];
  if (kind === undefined)
    throw new LayerError(`the layer has an entry of the unsupported type ${JSON.stringify(header.typeFlag)}`);
  return kind === "file" && header.typeFlag === "\0" && name.endsWith("/") ? "directory" : kind;
}

export function entryOf(header: TarHeader, extended: Extended, limits: TarLimits): TarEntry {
  const { records } = extended;
  for (const key of records.keys())
    if (key.startsWith("GNU.sparse.")) throw new LayerError("the layer has a sparse file, which is not supported");
  const name = textRecord(records, "path") ?? extended.longName ?? header.name;
  const kind = kindOf(header, name);
  const paxSize = records.get("size");
  const size = kind !== "file" ? 0 : paxSize === undefined ? header.size : parsePaxNumber(paxSize, "size");
  if (size > limits.layerBytes) throw new LayerError(`a file in the layer is larger than ${limits.layerBytes} bytes`);
  const mtime = records.get("mtime");
  return {
    kind,
    name,
    linkName: textRecord(records, "linkpath") ?? extended.longLink ?? header.linkName,
    mode: header.mode & 0o7777,
    uid: idRecord(records, "uid", header.uid),
    gid: idRecord(records, "gid", header.gid),
    size,
    mtimeNs: mtime === undefined ? BigInt(header.mtimeSeconds) * 1_000_000_000n : parsePaxTime(mtime),
    deviceMajor: header.deviceMajor,
    deviceMinor: header.deviceMinor,
    xattrs: [...records]
      .filter(([key]) => key.startsWith(xattrPrefix))
      .map(([key, value]) => [key.slice(xattrPrefix.length), value] as const),
  };
}

/** GNU long names end in a NUL that is counted in their size. */
function longText(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return decodeText(end === -1 ? bytes : bytes.subarray(0, end));
}

export interface Metadata {
  begin(header: TarHeader): void;
  data(chunk: Buffer): void;
  end(header: TarHeader): void;
  /** What was gathered since the last entry. */
  take(): Extended;
}

/** Gathers what pax and GNU headers say about the entry that follows them. */
export function createMetadata(limits: TarLimits): Metadata {
  const globals = new Map<string, Buffer>();
  let globalBytes = 0;
  let extended = noExtension(globals);
  let body: Buffer[] = [];

  function setGlobal(key: string, value: Buffer): void {
    globalBytes += value.length - (globals.get(key)?.length ?? -key.length);
    globals.set(key, Buffer.from(value)); // without the header that it came in
    if (globals.size > 1024 || globalBytes > limits.tarMetadataBytes)
      throw new LayerError("the layer has too many global headers");
  }
  return {
    begin(header) {
      body = [];
      extended.bytes += blockBytes + header.size;
      if (extended.bytes > limits.tarMetadataBytes)
        throw new LayerError(`the headers of one entry are larger than ${limits.tarMetadataBytes} bytes`);
    },
    data(chunk) {
      body.push(Buffer.from(chunk)); // the chunk's memory is used again
    },
    end(header) {
      const bytes = Buffer.concat(body);
      if (header.typeFlag === "L") extended.longName = longText(bytes);
      else if (header.typeFlag === "K") extended.longLink = longText(bytes);
      else
        for (const [key, value] of parsePaxRecords(bytes)) {
          extended.records.set(key, value);
          if (header.typeFlag === "g") setGlobal(key, value);
        }
    },
    take() {
      const taken = extended;
      extended = noExtension(globals);
      return taken;
    },
  };
}
