import { copyFile, mkdir } from "node:fs/promises";
import path from "node:path";
import { addImage, createLayout, pushImage } from "../harness/image-builder.ts";
import { cacheDirectory } from "../harness/repository.ts";
import { layRootFilesystem, packLayer } from "../harness/root-filesystem.ts";
import { largeTag, oneLayerTag, smallTags, type SyntheticLayout, syntheticLayout } from "./synthetic-images.ts";

/** Images that are there to be pulled. */
export interface PullImages {
  /** 500 MB in eight layers. */
  readonly large: string;
  /** The same through the throttle. */
  readonly largeThrottled: string;
  /** 500 MB in one layer, through the throttle. */
  readonly oneLayerThrottled: string;
  /** Of 10 MB each. */
  readonly small: readonly string[];
}

/** What the benchmark's registry holds. */
export interface BenchImages {
  /** host:port of the registry itself, and of the throttle in front of it. */
  readonly registries: readonly string[];
  readonly image: string;
  readonly pauseImage: string;
  readonly pullImages: PullImages;
  /** The small image's files, for the floor's containers. */
  readonly rootDirectory: string;
}

/**
 * Runs until SIGTERM, which it obeys at once. It says when it is able to: a first process has no default handlers, so
 * a signal that comes before the trap is set would be lost.
 */
export const sleeper = ["sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 2147483647 & wait"] as const;

/** Builds the images of the pods below `directory` and pushes them, and those of the layouts that are wanted. */
export async function pushBenchImages(
  directory: string,
  addresses: { readonly registry: string; readonly throttle: string },
  wanted: ReadonlySet<SyntheticLayout>,
): Promise<BenchImages> {
  const { registry, throttle } = addresses;
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
    registries: [registry, throttle],
    image: `${registry}/bench/sleeper:1`,
    pauseImage: `${registry}/bench/pause:1`,
    pullImages: {
      large: syntheticName(registry, largeTag),
      largeThrottled: syntheticName(throttle, largeTag),
      oneLayerThrottled: syntheticName(throttle, oneLayerTag),
      small: smallTags.map((tag) => syntheticName(registry, tag)),
    },
    rootDirectory,
  };
  await pushImage(layout, "sleeper", images.image);
  await pushImage(layout, "pause", images.pauseImage);
  for (const name of wanted) {
    const synthetic = await syntheticLayout(name);
    for (const tag of synthetic.tags) await pushImage(synthetic.layout, tag, syntheticName(registry, tag));
  }
  return images;
}

function syntheticName(address: string, tag: string): string {
  return `${address}/bench/${tag}:1`;
}
