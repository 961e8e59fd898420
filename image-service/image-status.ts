import type { Call, cri, Init } from "../cri-api/index.ts";
import { findImage } from "./image-find.ts";
import type { StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";

/** The largest uid; -1 is the kernel's "unchanged". */
const maxUid = 2 ** 32 - 2;

/**
 * Splits the image's `User` for kubelet's runAsNonRoot check: digits are a uid, anything else a name, and a number that
 * no uid can be is neither, which kubelet takes for root (CVE-2026-46680).
 */
export function imageUser(user: string): { uid?: { value: bigint }; username?: string } {
  const [name = ""] = user.split(":", 1);
  if (name === "") return {};
  if (!/^\d+$/.test(name)) return { username: name };
  const uid = Number(name);
  return uid <= maxUid ? { uid: { value: BigInt(name) } } : {};
}

/** An image as the CRI lists it. */
export function toCriImage(image: StoredImage): Init<cri.Image> {
  return {
    id: image.id,
    repoTags: image.repoTags,
    repoDigests: image.repoDigests,
    size: image.sizeBytes,
    ...imageUser(image.config.user),
    spec: { image: image.repoTags[0] ?? image.repoDigests[0] ?? image.id },
    pinned: image.pinned,
  };
}

async function verboseInfo(images: ImageStore, image: StoredImage): Promise<Record<string, string>> {
  const configJson = await images.readConfig(image.id);
  const { manifestDigest, layers, names } = image;
  const imageSpec: unknown = configJson === undefined ? {} : JSON.parse(configJson);
  return { info: JSON.stringify({ imageSpec, manifestDigest, layers, names }) };
}

/** ImageStatus: an image that is not there is an empty answer, not an error. */
export async function imageStatus(
  images: ImageStore,
  _call: Call,
  request: cri.ImageStatusRequest,
): Promise<Init<cri.ImageStatusResponse>> {
  const image = findImage(images, request.image?.image ?? "");
  if (image === undefined) return {};
  return { image: toCriImage(image), info: request.verbose ? await verboseInfo(images, image) : {} };
}

/** ListImages, from memory. */
export async function listImages(
  images: ImageStore,
  _call: Call,
  request: cri.ListImagesRequest,
): Promise<Init<cri.ListImagesResponse>> {
  const wanted = request.filter?.image?.image ?? "";
  if (wanted === "") return { images: images.list().map(toCriImage) };
  const image = findImage(images, wanted);
  return { images: image === undefined ? [] : [toCriImage(image)] };
}
