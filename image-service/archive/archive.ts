import { readSync } from "node:fs";

import { type Digest, digestOf } from "../digest.ts";
import { describeName, parseEntryPath } from "../layer/entry-path.ts";
import { createMetadata, entryOf, metadataTypes, type TarEntry } from "../layer/tar-entry.ts";
import { blockBytes, isZeroBlock, parseTarHeader } from "../layer/tar-header.ts";
import type { PullLimits } from "../registry/limits.ts";
import { ArchiveError } from "./archive-error.ts";

/** A file in the archive, by where its bytes lie. */
export interface Member {
  readonly offset: number;
  readonly size: number;
}

/** A tar archive on the disk, whose members are found by name. */
export interface Archive {
  /** A file of this path; links in the archive are followed. */
  find(path: string): Member | undefined;
  /**
   * The bytes of a small file.
   *
   * @throws {ArchiveError} where it is absent or larger than `maxBytes`.
   */
  read(path: string, maxBytes: number): Buffer;
}

interface Listing {
  readonly files: Map<string, Member>;
  /** Targets as paths from the archive's root. */
  readonly links: Map<string, string>;
}

/** Manifests and configs of one archive, together; each counts as a block at least. */
const maxSmallBytes = 64 << 20;
const leastSmallBytes = 4096;
/** Legacy archives of `docker save` share layers by links, each to a real file. */
const maxLinks = 8;

function readExactly(fd: number, offset: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let filled = 0; filled < size; ) {
    const length = readSync(fd, bytes, filled, size - filled, offset + filled);
    if (length === 0) throw new ArchiveError("it ends in the middle of a member");
    filled += length;
  }
  return bytes;
}

/** The path of a member, without `.` and slashes too many; "" for the archive's own folder. */
function pathOf(name: string, limits: PullLimits): string {
  const { folder, base } = parseEntryPath(name, limits.pathDepth);
  return folder === "" ? base : `${folder}/${base}`;
}

function targetOf(path: string, target: string): string {
  const folders = target.startsWith("/") ? [] : path.split("/").slice(0, -1);
  for (const component of target.split("/")) {
    if (component === "" || component === ".") continue;
    if (component !== "..") folders.push(component);
    else if (folders.pop() === undefined) throw new ArchiveError(`link ${describeName(path)} leads out of it`);
  }
  return folders.join("/");
}

/** Two files of one name would be read as one thing by us and as another by somebody else. */
function addMember(listing: Listing, entry: TarEntry, offset: number, limits: PullLimits): void {
  const path = pathOf(entry.name, limits);
  if (entry.kind === "directory") return;
  if (listing.files.has(path) || listing.links.has(path))
    throw new ArchiveError(`it has two members called ${describeName(path)}`);
  if (entry.kind === "file") listing.files.set(path, { offset, size: entry.size });
  else if (entry.kind === "symlink") listing.links.set(path, targetOf(path, entry.linkName));
  else if (entry.kind === "hardlink") listing.links.set(path, pathOf(entry.linkName, limits));
}

/** Walks the headers, passing over what lies between them. */
function listMembers(fd: number, sizeBytes: number, limits: PullLimits): Listing {
  const listing: Listing = { files: new Map(), links: new Map() };
  const metadata = createMetadata(limits);
  let members = 0;
  for (let offset = 0; offset < sizeBytes; ) {
    const block = readExactly(fd, offset, blockBytes);
    if (isZeroBlock(block)) break;
    const header = parseTarHeader(block);
    offset += blockBytes;
    let { size } = header;
    if (metadataTypes.has(header.typeFlag)) {
      metadata.begin(header); // refuses one that is too large
      metadata.data(readExactly(fd, offset, size));
      metadata.end(header);
    } else {
      const entry = entryOf(header, metadata.take(), limits);
      ({ size } = entry);
      if (offset + size > sizeBytes) throw new ArchiveError("it ends in the middle of a member");
      members += 1;
      if (members > limits.layerEntries) throw new ArchiveError(`it has more than ${limits.layerEntries} members`);
      addMember(listing, entry, offset, limits);
    }
    offset += Math.ceil(size / blockBytes) * blockBytes;
  }
  return listing;
}

/**
 * Reads the table of a tar archive.
 *
 * @throws {ArchiveError} or a LayerError for one that is malformed or beyond a limit.
 */
export function openArchive(fd: number, sizeBytes: number, limits: PullLimits): Archive {
  const { files, links } = listMembers(fd, sizeBytes, limits);
  let smallBytes = 0;

  function find(name: string): Member | undefined {
    let path = pathOf(name, limits);
    for (let followed = 0; followed <= maxLinks; followed += 1) {
      const target = links.get(path);
      if (target === undefined) return files.get(path);
      path = target;
    }
    throw new ArchiveError(`link ${describeName(name)} leads to itself`);
  }
  return {
    find,
    read(path, maxBytes) {
      const member = find(path);
      if (member === undefined) throw new ArchiveError(`it lacks ${describeName(path)}`);
      if (member.size > maxBytes) throw new ArchiveError(`${describeName(path)} is larger than ${maxBytes} bytes`);
      smallBytes += Math.max(member.size, leastSmallBytes);
      if (smallBytes > maxSmallBytes) throw new ArchiveError("it has too many manifests and configs");
      return readExactly(fd, member.offset, member.size);
    },
  };
}

/** Where an OCI layout keeps a blob. */
export function blobPath(digest: Digest): string {
  return `blobs/${digest.replace(":", "/")}`;
}

/** A blob of an OCI layout, held against its digest. */
export function readBlob(archive: Archive, digest: Digest, maxBytes: number): Buffer {
  const bytes = archive.read(blobPath(digest), maxBytes);
  const actual = digestOf(bytes, digest);
  if (actual !== digest) throw new ArchiveError(`blob ${digest} has the digest ${actual}`);
  return bytes;
}
