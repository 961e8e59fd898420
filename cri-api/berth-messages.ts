// Generated from berth-v1.proto by `node cri-api/generate-types.ts`; do not edit.
/* oxlint-disable max-lines -- generated: one declaration per message of the contract */

export interface PullProgress {
  readonly image: string;
  readonly phase: string;
  readonly host: string;
  readonly elapsedMs: bigint;
  readonly layers: bigint;
  readonly layersDone: bigint;
  readonly totalBytes: bigint;
  readonly downloadedBytes: bigint;
  readonly unpackedBytes: bigint;
  readonly bytesPerSecond: bigint;
}

export interface FollowPullRequest {
  readonly image: string;
  readonly username: string;
  readonly password: string;
}

export interface FollowPullResponse {
  readonly progress: PullProgress | null;
  readonly imageRef: string;
}

export interface ImportImagesRequest {
  readonly options: ImportOptions | null;
  readonly chunk: Buffer;
}

export interface ImportOptions {
  readonly name: string;
  readonly platform: string;
  readonly allPlatforms: boolean;
}

export interface ImportImagesResponse {
  readonly imageId: string;
  readonly names: readonly string[];
  readonly platform: string;
}

export interface ExportImagesRequest {
  readonly images: readonly string[];
  readonly allPlatforms: boolean;
}

export interface ExportImagesResponse {
  readonly chunk: Buffer;
}

export interface VerifyImagesRequest {
  readonly images: readonly string[];
  readonly repair: boolean;
}

export interface VerifyImagesResponse {
  readonly layer: string;
  readonly images: readonly string[];
  readonly outcome: string;
  readonly detail: string;
  readonly uncompressedBytes: bigint;
}

export interface ImageAdminMethods {
  readonly FollowPull: {
    readonly request: FollowPullRequest;
    readonly response: FollowPullResponse;
    readonly stream: true;
  };
  readonly ImportImages: {
    readonly request: ImportImagesRequest;
    readonly response: ImportImagesResponse;
    readonly stream: true;
    readonly requestStream: true;
  };
  readonly ExportImages: {
    readonly request: ExportImagesRequest;
    readonly response: ExportImagesResponse;
    readonly stream: true;
  };
  readonly VerifyImages: {
    readonly request: VerifyImagesRequest;
    readonly response: VerifyImagesResponse;
    readonly stream: true;
  };
}
