import { LayerError } from "./layer-error.ts";
import { createMetadata, entryOf, type Metadata, metadataTypes, type TarEntry, type TarLimits } from "./tar-entry.ts";
import { blockBytes, isZeroBlock, parseTarHeader, type TarHeader } from "./tar-header.ts";

/** Takes the members in the order of the archive: `begin`, any number of `data`, `end`. */
export interface TarSink {
  begin(entry: TarEntry): void;
  data(chunk: Buffer): void;
  end(): void;
}

export interface TarReaderOptions {
  /** Takes all of the archive but the contents of its files. What it is given is not kept. */
  readonly onSkeleton?: ((bytes: Buffer) => void) | undefined;
  /** What is read is such a skeleton: the contents of files are elsewhere. */
  readonly isSkeleton?: boolean | undefined;
}

export interface TarReader {
  /** Takes the next bytes of the archive; chunks may be cut anywhere and are not kept. */
  write(chunk: Buffer): void;
  /** Says that the archive is over. */
  finish(): void;
}

interface State {
  readonly sink: TarSink;
  readonly limits: TarLimits;
  readonly options: TarReaderOptions;
  readonly metadata: Metadata;
  /** The start of a header that a chunk cut. */
  readonly partial: Buffer;
  partialBytes: number;
  dataLeft: number;
  paddingLeft: number;
  zeroBlocks: number;
  /** The extended header whose body is being read. */
  metadataHeader: TarHeader | undefined;
}

function endMember(state: State): void {
  if (state.metadataHeader === undefined) state.sink.end();
  else state.metadata.end(state.metadataHeader);
  state.metadataHeader = undefined;
}

function beginMember(state: State, block: Buffer): void {
  const header = parseTarHeader(block);
  if (metadataTypes.has(header.typeFlag)) {
    state.metadata.begin(header);
    state.metadataHeader = header;
    state.dataLeft = header.size;
  } else {
    const entry = entryOf(header, state.metadata.take(), state.limits);
    state.sink.begin(entry);
    state.dataLeft = entry.size;
  }
  state.paddingLeft = (blockBytes - (state.dataLeft % blockBytes)) % blockBytes;
  if (state.options.isSkeleton && state.metadataHeader === undefined) state.dataLeft = 0;
  if (state.dataLeft === 0) endMember(state);
}

function takeBlock(state: State, block: Buffer): void {
  if (isZeroBlock(block)) state.zeroBlocks += 1;
  else if (state.zeroBlocks > 0) throw new LayerError("the layer goes on after a block of zeros");
  else beginMember(state, block);
}

function takeData(state: State, data: Buffer): number {
  if (state.metadataHeader === undefined) state.sink.data(data);
  else state.metadata.data(data);
  state.dataLeft -= data.length;
  if (state.dataLeft === 0) endMember(state);
  return data.length;
}

function takePartial(state: State, bytes: Buffer): number {
  bytes.copy(state.partial, state.partialBytes);
  state.partialBytes += bytes.length;
  if (state.partialBytes === blockBytes) {
    state.partialBytes = 0;
    takeBlock(state, state.partial);
  }
  return bytes.length;
}

/** Consumes some bytes from `offset` on and says how many. */
function step(state: State, chunk: Buffer, offset: number): number {
  const available = chunk.length - offset;
  if (state.dataLeft > 0) return takeData(state, chunk.subarray(offset, offset + Math.min(state.dataLeft, available)));
  if (state.paddingLeft > 0) {
    const length = Math.min(state.paddingLeft, available);
    state.paddingLeft -= length;
    return length;
  }
  if (state.partialBytes === 0 && available >= blockBytes) {
    takeBlock(state, chunk.subarray(offset, offset + blockBytes));
    return blockBytes;
  }
  return takePartial(state, chunk.subarray(offset, offset + Math.min(blockBytes - state.partialBytes, available)));
}

/** Consumes a whole chunk, what follows the archive's end as well. */
function take(state: State, chunk: Buffer): void {
  const { onSkeleton } = state.options;
  for (let offset = 0; offset < chunk.length; ) {
    const isContent = state.dataLeft > 0 && state.metadataHeader === undefined;
    const length = state.zeroBlocks < 2 ? step(state, chunk, offset) : chunk.length - offset;
    if (!isContent) onSkeleton?.(chunk.subarray(offset, offset + length));
    offset += length;
  }
}

/** A push parser for ustar, pax and GNU tar. Nothing is buffered but a header and the metadata of one entry. */
export function createTarReader(sink: TarSink, limits: TarLimits, options: TarReaderOptions = {}): TarReader {
  const state: State = {
    sink,
    limits,
    options,
    metadata: createMetadata(limits),
    partial: Buffer.alloc(blockBytes),
    partialBytes: 0,
    dataLeft: 0,
    paddingLeft: 0,
    zeroBlocks: 0,
    metadataHeader: undefined,
  };
  return {
    write: (chunk) => take(state, chunk),
    finish() {
      // Like Go's reader, the end of the input between two entries ends the archive as well.
      const isBetween = state.dataLeft === 0 && state.paddingLeft === 0 && state.partialBytes === 0;
      if (state.zeroBlocks === 0 && !isBetween) throw new LayerError("the layer ends in the middle of an entry");
    },
  };
}
