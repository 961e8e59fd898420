import { setTimeout as sleep } from "node:timers/promises";

import type { berth, Call, Init } from "../cri-api/index.ts";
import type { ImagePuller } from "./image-pull.ts";
import type { PullProgress } from "./pull-progress.ts";
import type { ImageStore } from "./store/image-store.ts";

/** How often a client that follows a pull hears of it. */
const intervalMs = 250;

/** A pull under way, in the words of our own service. */
function toMessage(pull: PullProgress): Init<berth.PullProgress> {
  return {
    ...pull,
    elapsedMs: BigInt(pull.elapsedMs),
    layers: BigInt(pull.layers),
    layersDone: BigInt(pull.layersDone),
    totalBytes: BigInt(pull.totalBytes),
    downloadedBytes: BigInt(pull.downloadedBytes),
    unpackedBytes: BigInt(pull.unpackedBytes),
    bytesPerSecond: BigInt(pull.bytesPerSecond),
  };
}

/** FollowPull: pulls as PullImage does and tells how far it has come, four times a second. */
export async function* followPull(
  { puller, images }: { readonly puller: ImagePuller; readonly images: ImageStore },
  call: Call,
  request: berth.FollowPullRequest,
): AsyncGenerator<Init<berth.FollowPullResponse>, void> {
  const { image, username, password } = request;
  const names = images.namesFor(image);
  const noSecrets = { auth: "", serverAddress: "", identityToken: "", registryToken: "" };
  const auth = username === "" ? null : { ...noSecrets, username, password };
  const spec = { image, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" };
  const pulled = puller.pullImage(call, { image: spec, auth, sandboxConfig: null });
  const over = pulled.then(
    () => true,
    () => true,
  );
  while (!(await Promise.race([over, sleep(intervalMs, false)]))) {
    const progress = puller.progress().find((pull) => names.includes(pull.image));
    if (progress !== undefined) yield { progress: toMessage(progress) };
  }
  yield { imageRef: (await pulled).imageRef };
}
