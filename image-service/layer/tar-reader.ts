import type { PullLimits } from "../registry/limits.ts";
import { LayerError } from "./layer-error.ts";
import { parsePaxNumber, parsePaxRecords, parsePaxTime } from "./pax.ts";
import { blockBytes, decodeText, isZeroBlock, parseTarHeader, type TarHeader } from "./tar-header.ts";

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

/** Takes the members in the order of the archive: `begin`, any number of `data`, `end`. */
export interface TarSink {
  begin(entry: TarEntry): void;
  data(chunk: Buffer): void;
  end(): void;
}

export interface TarReader {
  /** Takes the next bytes of the archive; chunks may be cut anywhere and are not kept. */
  write(chunk: Buffer): void;
  /** Says that the archive is over. */
  finish(): void;
}

type TarLimits = Pick<PullLimits, "layerBytes" | "tarMetadataBytes">;

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
const metadataTypes: ReadonlySet<string> = new Set(["x", "g", "L", "K"]);
const maxId = 2 ** 32 - 2;
const xattrPrefix = "SCHILY.xattr.";

interface Extended {
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

function entryOf(header: TarHeader, extended: Extended, limits: TarLimits): TarEntry {
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

/** Gathers what pax and GNU headers say about the entry that follows them. */
function createMetadata(limits: TarLimits): {
  begin(header: TarHeader): void;
  data(chunk: Buffer): void;
  end(header: TarHeader): void;
  take(): Extended;
} {
  const globals = new Map<string, Buffer>();
  let extended = noExtension(globals);
  let body: Buffer[] = [];
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
          if (header.typeFlag === "g") globals.set(key, value);
        }
      if (globals.size > 1024) throw new LayerError("the layer has too many global headers");
    },
    take() {
      const taken = extended;
      extended = noExtension(globals);
      return taken;
    },
  };
}

/** A push parser for ustar, pax and GNU tar. Nothing is buffered but a header and the metadata of one entry. */
export function createTarReader(sink: TarSink, limits: TarLimits): TarReader {
  const metadata = createMetadata(limits);
  const partial = Buffer.alloc(blockBytes);
  let partialBytes = 0;
  let dataLeft = 0;
  let paddingLeft = 0;
  let zeroBlocks = 0;
  let metadataHeader: TarHeader | undefined;
  let isInEntry = false;

  function endMember(): void {
    if (metadataHeader !== undefined) metadata.end(metadataHeader);
    else sink.end();
    metadataHeader = undefined;
    isInEntry = false;
  }

  function beginMember(block: Buffer): void {
    const header = parseTarHeader(block);
    if (metadataTypes.has(header.typeFlag)) {
      metadata.begin(header);
      metadataHeader = header;
      dataLeft = header.size;
    } else {
      const entry = entryOf(header, metadata.take(), limits);
      sink.begin(entry);
      dataLeft = entry.size;
    }
    isInEntry = true;
    paddingLeft = (blockBytes - (dataLeft % blockBytes)) % blockBytes;
    if (dataLeft === 0) endMember();
  }

  function takeBlock(block: Buffer): void {
    if (isZeroBlock(block)) zeroBlocks += 1;
    else if (zeroBlocks > 0) throw new LayerError("the layer goes on after a block of zeros");
    else beginMember(block);
  }

  /** Consumes some bytes from `offset` on and says how many. */
  function step(chunk: Buffer, offset: number): number {
    const available = chunk.length - offset;
    if (dataLeft > 0) {
      const length = Math.min(dataLeft, available);
      const data = chunk.subarray(offset, offset + length);
      if (metadataHeader === undefined) sink.data(data);
      else metadata.data(data);
      dataLeft -= length;
      if (dataLeft === 0) endMember();
      return length;
    }
    if (paddingLeft > 0) {
      const length = Math.min(paddingLeft, available);
      paddingLeft -= length;
      return length;
    }
    if (partialBytes === 0 && available >= blockBytes) {
      takeBlock(chunk.subarray(offset, offset + blockBytes));
      return blockBytes;
    }
    const length = Math.min(blockBytes - partialBytes, available);
    chunk.copy(partial, partialBytes, offset, offset + length);
    partialBytes += length;
    if (partialBytes === blockBytes) {
      partialBytes = 0;
      takeBlock(partial);
    }
    return length;
  }

  return {
    write(chunk) {
      for (let offset = 0; offset < chunk.length && zeroBlocks < 2; ) offset += step(chunk, offset);
    },
    finish() {
      // Like Go's reader, the end of the input between two entries ends the archive as well.
      if (zeroBlocks === 0 && (isInEntry || partialBytes > 0 || paddingLeft > 0))
        throw new LayerError("the layer ends in the middle of an entry");
    },
  };
}
