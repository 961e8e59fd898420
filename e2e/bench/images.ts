import { copyFile, mkdir } from "node:fs/promises";
import path from "node:path";
import { addImage, createLayout, pushImage } from "../harness/image-builder.ts";
import { cacheDirectory } from "../harness/repository.ts";
import { layRootFilesystem, packLayer } from "../harness/root-filesystem.ts";
import { largeImageLayout } from "./large-image.ts";

/** What the benchmark's registry holds. */
export interface BenchImages {
  /** host:port. */
  readonly registry: string;
  readonly image: string;
  readonly pauseImage: string;
  readonly largeImage: string;
  /** The small image's files, for the floor's containers. */
  readonly rootDirectory: string;
}

/**
 * Runs until SIGTERM, which it obeys at once. It says when it is able to: a first process has no default handlers, so
 * a signal that comes before the trap is set would be lost.
 */
export const sleeper = ["sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 2147483647 & wait"] as const;

/** Builds the small images below `directory` and pushes them; the large one only when it is wanted. */
export async function pushBenchImages(
  directory: string,
  registry: string,
  options: { readonly withLarge: boolean },
): Promise<BenchImages> {
  const rootDirectory = path.join(directory, "root");
  const pauseDirectory = path.join(directory, "pause");
  await mkdir(pauseDirectory, { recursive: true });
  await layRootFilesystem(rootDirectory);
  await copyFile(path.join(cacheDirectory, "bench/pause"), path.join(pauseDirectory, "pause"));
  const layout = await createLayout(path.join(directory, "oci"));
  const env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
  await addImage(layout, "sleeper", [await packLayer(rootDirectory, `${rootDirectory}.tar`)], { cmd: sleeper, env });
  const pauseLayers = [await packLayer(pauseDirectory, `${pauseDirectory}.tar`)];
  await addImage(layout, "pause", pauseLayers, { entrypoint: ["/pause"] });
  const images = {
    registry,
    image: `${registry}/bench/sleeper:1`,
    pauseImage: `${registry}/bench/pause:1`,
    largeImage: `${registry}/bench/large:1`,
    rootDirectory,
  };
  await pushImage(layout, "sleeper", images.image);
  await pushImage(layout, "pause", images.pauseImage);
  if (options.withLarge) await pushImage(await largeImageLayout(), "large", images.largeImage);
  return images;
}
