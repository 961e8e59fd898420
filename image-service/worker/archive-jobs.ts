import { createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { Code, CriError } from "../../cri-api/index.ts";
import { type Member, openArchive } from "../archive/archive.ts";
import { ArchiveError } from "../archive/archive-error.ts";
import type { ArchivedImage } from "../archive/contents.ts";
import { readDockerArchive } from "../archive/docker-archive.ts";
import { nameImages } from "../archive/names.ts";
import { readOciLayout } from "../archive/oci-layout.ts";
import type { Digest } from "../digest.ts";
import { checkedBytes } from "../layer/checked-bytes.ts";
import { decompress, detectCompression } from "../layer/decompress.ts";
import { fileChunks } from "../layer/file-chunks.ts";
import { LayerError } from "../layer/layer-error.ts";
import { unpackArtifact, type UnpackedLayer, unpackLayer, type UnpackTarget } from "../layer/unpack.ts";
import type { PullLimits } from "../registry/limits.ts";
import { RegistryFailure } from "../registry/failure.ts";
import { storageFailure } from "../storage-failure.ts";
import type { ArchiveContents, LayerResult, ReadArchiveJob, UnpackJob } from "./protocol.ts";

const sniffedBytes = 6;

function archiveFailure(thrown: unknown, what: string): CriError {
  const isTheirs = thrown instanceof ArchiveError || thrown instanceof LayerError || thrown instanceof RegistryFailure;
  if (isTheirs) return new CriError(Code.InvalidArgument, `${what}: ${thrown.message}`, { cause: thrown });
  return storageFailure(thrown, what, "unpacked");
}

async function* bounded(source: AsyncIterable<Buffer>, limits: PullLimits): AsyncGenerator<Buffer, void> {
  let bytes = 0;
  for await (const chunk of source) {
    bytes += chunk.length;
    if (bytes > limits.archiveBytes)
      throw new ArchiveError(`it is larger than ${limits.archiveBytes} bytes when decompressed`);
    yield Buffer.from(chunk); // its memory is used again, and a stream reads ahead
  }
}

/** The archive as a plain tar: itself, or a file beside it. */
async function inflate(path: string, limits: PullLimits, signal: AbortSignal): Promise<string> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(sniffedBytes), 0, sniffedBytes, 0);
  if (bytesRead < sniffedBytes || detectCompression(buffer) === "none") return path;
  const plain = `${path}.tar`;
  const inflated = Readable.from(bounded(decompress(fileChunks(path)), limits), { objectMode: false });
  await pipeline(inflated, createWriteStream(plain, { flags: "wx", mode: 0o600 }), { signal });
  return plain;
}

function readImages(archive: ReturnType<typeof openArchive>, job: ReadArchiveJob): readonly ArchivedImage[] {
  if (archive.find("index.json") !== undefined) return readOciLayout(archive, job.selection);
  if (archive.find("manifest.json") !== undefined) return readDockerArchive(archive, job.selection);
  throw new ArchiveError("it is no image archive: it has neither index.json nor manifest.json");
}

/** Finds the images of an archive and all that is needed to unpack them. */
export async function runReadArchive(job: ReadArchiveJob, signal: AbortSignal): Promise<ArchiveContents> {
  const { limits } = job.selection;
  try {
    const path = await inflate(job.path, limits, signal);
    await using file = await open(path);
    const { size } = await file.stat();
    const images = readImages(openArchive(file.fd, size, limits), job);
    if (images.length === 0) throw new ArchiveError("it has no image");
    return { path, images: nameImages(images, job.name) };
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof CriError) throw thrown; // a name that is none
    throw archiveFailure(thrown, job.what);
  }
}

/** The bytes of a blob, held against the digest that the manifest gives them. */
function blobBytes(path: string, member: Member, digest: Digest): AsyncGenerator<Buffer, void> {
  return checkedBytes(fileChunks(path, member), digest, `blob ${digest}`);
}

async function fill({ path, layer }: UnpackJob, target: UnpackTarget): Promise<UnpackedLayer> {
  const { member, files, blob } = layer;
  if (files === undefined)
    return await unpackLayer(
      blob === undefined ? fileChunks(path, member) : blobBytes(path, member, blob.digest),
      target,
    );
  const contents = files.map((file) => ({ ...file, bytes: blobBytes(path, file.member, file.digest) }));
  return await unpackArtifact(contents, target);
}

/** Unpacks a layer out of an archive. */
export async function runUnpack(job: UnpackJob, signal: AbortSignal): Promise<LayerResult> {
  const { directory, layer, limits } = job;
  const { diffId } = layer;
  try {
    const onProgress = (): void => signal.throwIfAborted();
    return { ...(await fill(job, { directory, diffId, limits, onProgress })), host: "" };
  } catch (thrown) {
    signal.throwIfAborted();
    throw archiveFailure(thrown, `${job.what}: layer ${diffId}`);
  }
}
