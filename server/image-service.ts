import type { berth, cri } from "../cri-api/index.ts";
import type { DuplexHandler, HandlerTable, StreamHandler, UnaryHandler } from "./handlers.ts";
import { streamList } from "./list-streams.ts";

/** What this file needs of the image-service room. */
export interface ImageRpcs {
  readonly listImages: UnaryHandler<"ListImages">;
  readonly imageStatus: UnaryHandler<"ImageStatus">;
  readonly pullImage: UnaryHandler<"PullImage">;
  readonly removeImage: UnaryHandler<"RemoveImage">;
  readonly imageFsInfo: UnaryHandler<"ImageFsInfo">;
  readonly followPull: StreamHandler<"FollowPull">;
  readonly importImages: DuplexHandler<"ImportImages">;
  readonly exportImages: StreamHandler<"ExportImages">;
  readonly verifyImages: StreamHandler<"VerifyImages">;
}

type Names = keyof cri.ImageServiceMethods | keyof berth.ImageAdminMethods;

/** ImageService and ImageAdmin: every RPC of the contracts, and who answers it. */
export function imageHandlers(images: ImageRpcs): HandlerTable<Names> {
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
    FollowPull: (call, request) => images.followPull(call, request),
    ImportImages: (call, requests) => images.importImages(call, requests),
    ExportImages: (call, request) => images.exportImages(call, request),
    VerifyImages: (call, request) => images.verifyImages(call, request),
  };
}
