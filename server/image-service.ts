import type { cri } from "../cri-api/index.ts";
import type { HandlerTable, UnaryHandler } from "./handlers.ts";
import { streamList } from "./list-streams.ts";

/** What this file needs of the image-service room. */
export interface ImageRpcs {
  readonly listImages: UnaryHandler<"ListImages">;
  readonly imageStatus: UnaryHandler<"ImageStatus">;
  readonly pullImage: UnaryHandler<"PullImage">;
  readonly removeImage: UnaryHandler<"RemoveImage">;
  readonly imageFsInfo: UnaryHandler<"ImageFsInfo">;
}

/** ImageService: every RPC of the contract, and who answers it. */
export function imageHandlers(images: ImageRpcs): HandlerTable<keyof cri.ImageServiceMethods> {
  return {
    ListImages: (call, request) => images.listImages(call, request),
    StreamImages: streamList(
      async (call, request) => (await images.listImages(call, request)).images ?? [],
      (chunk) => ({ images: chunk }),
    ),
    ImageStatus: (call, request) => images.imageStatus(call, request),
    PullImage: (call, request) => images.pullImage(call, request),
    RemoveImage: (call, request) => images.removeImage(call, request),
    ImageFsInfo: (call, request) => images.imageFsInfo(call, request),
  };
}
