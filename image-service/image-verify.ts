import { dirname } from "node:path";

import { type berth, type Call, Code, CriError, type Init } from "../cri-api/index.ts";
import { artifactOf } from "./archive/artifact-of.ts";
import type { Digest } from "./digest.ts";
import { findImage } from "./image-find.ts";
import type { ImagePuller } from "./image-pull.ts";
import { quote } from "./reference.ts";
import type { PullLimits } from "./registry/limits.ts";
import type { StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";
import type { LayerStore } from "./store/layer-store.ts";
import type { Verdict } from "./worker/protocol.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

export interface VerifyParts {
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly pool: WorkerPool;
  readonly puller: ImagePuller;
  readonly limits: PullLimits;
}

function findWanted(images: ImageStore, texts: readonly string[]): readonly StoredImage[] {
  if (texts.length === 0) return images.list();
  return texts.map((text) => {
    const image = findImage(images, text);
    if (image === undefined) throw new CriError(Code.NotFound, `image ${quote(text)} not found`);
    return image;
  });
}

/** Pulls one of the layer's images again, by whichever name a registry still has. @returns why nothing helped. */
async function repair(
  { layers, puller }: VerifyParts,
  call: Call,
  diffId: Digest,
  owners: readonly StoredImage[],
): Promise<string> {
  if (layers.isMounted(diffId)) return "a container uses it, so it stays as it is";
  layers.condemn(diffId);
  const reasons: string[] = [];
  for (const { repository, digest } of owners.flatMap(({ names }) => names)) {
    const image = `${repository}@${digest}`;
    const spec = { image, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" };
    try {
      await puller.pullImage(call, { image: spec, auth: null, sandboxConfig: null });
      if (layers.isSound(diffId)) return "";
    } catch (thrown) {
      call.signal.throwIfAborted();
      reasons.push(thrown instanceof Error ? thrown.message : String(thrown));
    }
  }
  return reasons.at(-1) ?? "no registry is known to have it";
}

/**
 * VerifyImages: every layer is read from the disk and held against its digest, several at a time. With `repair`, what
 * is damaged and in no container's use is pulled again and put in the place of the old; where that fails, the next
 * pull of the image tries again.
 */
export async function* verifyImages(
  parts: VerifyParts,
  call: Call,
  request: berth.VerifyImagesRequest,
): AsyncGenerator<Init<berth.VerifyImagesResponse>, void> {
  const { images, layers, pool, limits } = parts;
  const wanted = findWanted(images, request.images);
  const diffIds = [...new Set(wanted.flatMap((image) => image.layers.map(({ diffId }) => diffId)))];
  const hold = layers.hold(diffIds);
  const left = new AbortController();
  const signal = AbortSignal.any([call.signal, left.signal]);
  const look = async (diffId: Digest): Promise<Verdict> => {
    const artifact = wanted.find(({ id, type }) => id === diffId && type === "artifact");
    const manifest = artifact === undefined ? undefined : await images.readConfig(artifact.id);
    const files = manifest === undefined ? undefined : artifactOf(manifest).files;
    return await pool.run(
      { kind: "verify", directory: dirname(layers.rootOf(diffId)), diffId, limits, files },
      { signal },
    );
  };
  const looks = diffIds.map((diffId) => ({ diffId, verdict: look(diffId) }));
  for (const { verdict } of looks) verdict.catch(() => undefined); // heard of below, unless the caller has gone
  try {
    for (const { diffId, verdict } of looks) {
      const { outcome, detail } = await verdict;
      const owners = images.list().filter((image) => image.layers.some((layer) => layer.diffId === diffId));
      const isRepairing = outcome === "damaged" && request.repair;
      const failure = isRepairing ? await repair(parts, call, diffId, owners) : "";
      if (outcome === "damaged") call.log.warn({ layer: diffId, detail, failure }, "layer is damaged");
      yield {
        layer: diffId,
        images: owners.map(({ id }) => id),
        outcome: isRepairing && failure === "" ? "repaired" : outcome,
        detail: failure === "" ? detail : `${detail}; not repaired: ${failure}`,
        uncompressedBytes: BigInt(layers.get(diffId)?.uncompressedBytes ?? 0),
      };
    }
  } finally {
    left.abort();
    await Promise.allSettled(looks.map(({ verdict }) => verdict));
    await hold.release();
  }
}
