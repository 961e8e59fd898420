import { Code, CriError } from "../cri-api/index.ts";
import { quote } from "./reference.ts";
import type { StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";

/**
 * Finds an image by id, by the start of its id (three hex digits or more), or by any spelling of one of its names.
 *
 * @throws {CriError} `InvalidArgument` for a malformed name, or the start of several ids.
 */
export function findImage(images: ImageStore, text: string): StoredImage | undefined {
  const exact = images.byId(text);
  if (exact !== undefined) return exact;
  const hex = text.replace(/^sha256:/, "");
  if (/^[0-9a-f]{3,64}$/.test(hex)) {
    const [first, second] = images.byIdPrefix(hex);
    if (second !== undefined) throw new CriError(Code.InvalidArgument, `image id ${quote(text)} is ambiguous`);
    if (first !== undefined) return first;
    if (hex.length === 64) return undefined;
  }
  return images
    .namesFor(text)
    .map((name) => images.byName(name))
    .find((image) => image !== undefined);
}
