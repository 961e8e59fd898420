import type { ImageService, PullProgress } from "../../image-service/index.ts";
import type { Family } from "./exposition.ts";

/** What the metrics read of the image service. */
export type MeasuredImages = Pick<ImageService, "pullsInProgress" | "pullTotals" | "storeUsage">;

function gauge(name: string, help: string, value: number): Family {
  return { name, help, type: "gauge", samples: [{ value }] };
}

function counter(name: string, help: string, value: number): Family {
  return { name, help, type: "counter", samples: [{ value }] };
}

function ofPulls(
  name: string,
  help: string,
  pulls: readonly PullProgress[],
  value: (pull: PullProgress) => number,
): Family {
  const samples = pulls.map((pull) => ({ labels: { image: pull.image, host: pull.host }, value: value(pull) }));
  return { name, help, type: "gauge", samples };
}

/** What each pull is at: a series that says so in a label. */
function phaseOfPulls(pulls: readonly PullProgress[]): Family {
  const samples = pulls.map(({ image, host, phase }) => ({ labels: { image, host, phase }, value: 1 }));
  return { name: "berth_image_pull_phase", help: "What a pull under way is at.", type: "gauge", samples };
}

/** The store, the pulls since the start, and those under way: a series each, gone with the pull. */
export function imageFamilies(images: MeasuredImages): readonly Family[] {
  const [pulls, totals, usage] = [images.pullsInProgress(), images.pullTotals(), images.storeUsage()];
  return [
    gauge("berth_images", "Images in the store.", usage.images),
    gauge("berth_image_store_bytes", "Blocks that images take on the disk.", usage.usedBytes),
    gauge("berth_image_store_inodes", "Inodes that images take on the disk.", usage.inodes),
    counter("berth_image_pulls_total", "Pulls that ended well.", totals.pulled),
    counter("berth_image_pull_failures_total", "Pulls that failed or were given up.", totals.failed),
    counter("berth_image_pull_bytes_total", "Compressed bytes of layers downloaded.", totals.downloadedBytes),
    gauge("berth_image_pulls_in_progress", "Pulls under way.", pulls.length),
    ofPulls("berth_image_pull_bytes", "Bytes that a pull under way has to download.", pulls, (pull) => pull.totalBytes),
    ofPulls("berth_image_pull_downloaded_bytes", "Bytes that it has.", pulls, (pull) => pull.downloadedBytes),
    ofPulls("berth_image_pull_unpacked_bytes", "Bytes that it has unpacked.", pulls, (pull) => pull.unpackedBytes),
    phaseOfPulls(pulls),
    ofPulls("berth_image_pull_layers", "Layers of its image.", pulls, (pull) => pull.layers),
    ofPulls("berth_image_pull_layers_done", "Layers of it in the store.", pulls, (pull) => pull.layersDone),
    ofPulls("berth_image_pull_bytes_per_second", "Its speed of late.", pulls, (pull) => pull.bytesPerSecond),
    ofPulls("berth_image_pull_seconds", "Time since its start.", pulls, (pull) => pull.elapsedMs / 1000),
  ];
}
