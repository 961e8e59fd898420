import { createHash, randomBytes } from "node:crypto";
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { pushStandIns } from "../conformance/images.ts";
import { addImage, createLayout, pushImage } from "../harness/image-builder.ts";
import { startRegistry } from "../harness/registry.ts";
import { cacheDirectory } from "../harness/repository.ts";
import { layRootFilesystem, packLayer } from "../harness/root-filesystem.ts";

/** An image whose pull takes its time. */
export const largeImage = "registry.k8s.io/guest/large:1";
const largeBytes = 64 * 1024 * 1024;

/** What the images are made by; a change makes them anew. */
const sources = [
  "guest/stand-ins.ts",
  "conformance/images.ts",
  "conformance/programs",
  "harness/image-builder.ts",
  "harness/root-filesystem.ts",
];

/**
 * The data of a registry that holds critest's stand-ins, and the digest of the one that is pulled by digest in `digest`.
 * Made on this machine, where it takes seconds, and kept.
 */
export async function prepareStandIns(): Promise<string> {
  const key = await hashSources();
  const kept = path.join(cacheDirectory, "guest-images", key);
  if (await isThere(path.join(kept, "digest"))) return kept;
  const part = `${path.dirname(kept)}.part`;
  for (const directory of [part, path.dirname(kept)]) await rm(directory, { recursive: true, force: true });
  await mkdir(path.dirname(kept), { recursive: true });
  {
    await using registry = await startRegistry(path.join(part, "registry"));
    const { digest } = await pushStandIns(path.join(part, "images"), registry.address);
    await pushLargeImage(path.join(part, "large"), registry.address);
    await writeFile(path.join(part, "registry/digest"), digest);
  }
  await rename(path.join(part, "registry"), kept);
  await rm(part, { recursive: true });
  return kept;
}

/** The shell, and above it a layer that no compression makes smaller. */
async function pushLargeImage(directory: string, registry: string): Promise<void> {
  await layRootFilesystem(path.join(directory, "base"));
  await mkdir(path.join(directory, "large"));
  await writeFile(path.join(directory, "large/random"), randomBytes(largeBytes));
  const layers: string[] = [];
  for (const name of ["base", "large"]) {
    layers.push(await packLayer(path.join(directory, name), path.join(directory, `${name}.tar`)));
  }
  const layout = await createLayout(path.join(directory, "oci"));
  await addImage(layout, "large", layers, { cmd: ["sh"], env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
  await pushImage(layout, "large", largeImage.replace(/^[^/]*/u, registry), { format: "oci" });
}

async function hashSources(): Promise<string> {
  const hash = createHash("sha256");
  for (const source of sources) await addToHash(path.join(import.meta.dirname, "..", source));
  return hash.digest("hex").slice(0, 16);

  async function addToHash(file: string): Promise<void> {
    const entries = await readdir(file).catch(() => undefined);
    if (entries === undefined) return void hash.update(await readFile(file));
    for (const entry of entries.sort()) await addToHash(path.join(file, entry));
  }
}

async function isThere(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
