import type { Call, cri, Init } from "../cri-api/index.ts";
import { findImage } from "./image-find.ts";
import type { ImageStore } from "./store/image-store.ts";

/** A removal that another caller has begun, under whatever spelling this one uses. */
function removalUnderWay(images: ImageStore, text: string): Promise<void> | undefined {
  const id = /^(?:sha256:)?([0-9a-f]{64})$/.exec(text)?.[1];
  const names = id === undefined ? images.namesFor(text) : [`sha256:${id}`];
  return names.map((name) => images.removalOf(name)).find((removal) => removal !== undefined);
}

/**
 * RemoveImage: by id or by any name, the image goes with all its names. Its bytes are free when this resolves, except
 * for layers that other images or containers' root filesystems still use; those go with their last user. An image that
 * is not there is success, and so is one that somebody else is removing, once that is done.
 */
export async function removeImage(
  images: ImageStore,
  call: Call,
  request: cri.RemoveImageRequest,
): Promise<Init<cri.RemoveImageResponse>> {
  const text = request.image?.image ?? "";
  const image = findImage(images, text);
  if (image === undefined) {
    await removalUnderWay(images, text);
    return {};
  }
  await images.remove(image.id);
  call.log.info({ imageId: image.id, repoTags: image.repoTags }, "image removed");
  return {};
}
