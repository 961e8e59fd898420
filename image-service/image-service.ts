import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { type berth, type Call, Code, CriError, type cri, type Init, type Logger } from "../cri-api/index.ts";
import type { ImageServiceConfig } from "./config.ts";
import type { DeclaredVolume } from "./declared-volume.ts";
import type { ImageHost } from "./host.ts";
import { type ImageUse, requireImageAllowed } from "./image-allow.ts";
import { findImage } from "./image-find.ts";
import { imageFsInfo } from "./image-fs-info.ts";
import { followPull } from "./image-follow.ts";
import { exportImages } from "./image-export.ts";
import { importImages } from "./image-import.ts";
import { createImagePuller } from "./image-pull.ts";
import { removeImage } from "./image-remove.ts";
import { imageStatus, listImages } from "./image-status.ts";
import { verifyImages } from "./image-verify.ts";
import { createPinning } from "./pinned.ts";
import { hostPlatform, type Platform } from "./platform.ts";
import type { PullProgress, PullTotals } from "./pull-progress.ts";
import { quote } from "./reference.ts";
import { openRegistries, type Registries } from "./registries/registries.ts";
import { defaultLimits } from "./registry/limits.ts";
import { createTokenCache, type Token, type TokenCache } from "./registry/tokens.ts";
import { makeEmptyFolder } from "./scratch-folder.ts";
import { openRootfsStore, type RootfsStore, type RootfsUsage } from "./rootfs.ts";
import type { RootfsView } from "./rootfs-mount.ts";
import type { StoredImage } from "./store/image-record.ts";
import { createImageFiles } from "./store/image-files.ts";
import { type ImageStore, openImageStore } from "./store/image-store.ts";
import { createLayerFiles } from "./store/layer-files.ts";
import { type LayerStore, openLayerStore } from "./store/layer-store.ts";
import { openImageTrust } from "./trust/image-trust.ts";
import { createWorkerPool, type WorkerPool } from "./worker/worker-pool.ts";

/** What the image service is made of. */
export interface ImageServiceParts {
  readonly config: ImageServiceConfig;
  readonly log: Logger;
  readonly host: ImageHost;
}

/** The CRI's ImageService, and the root filesystems that containers are given. */
export interface ImageService extends AsyncDisposable {
  /**
   * Downloads and unpacks an image; `imageRef` is its id. Callers of one reference share the work, each may leave.
   *
   * @throws {CriError} `InvalidArgument` malformed reference, `NotFound`, `Unauthenticated`, `PermissionDenied`,
   *   `ResourceExhausted` throttled or disk full, `DataLoss` for bytes that are not what was promised, `Unavailable`;
   *   `Unknown` starting with `RegistryUnavailable: ` when no connection could be made, with
   *   `SignatureValidationFailed: ` when the signature policy of the pod's namespace does not allow it.
   */
  pullImage(call: Call, request: cri.PullImageRequest): Promise<Init<cri.PullImageResponse>>;
  /** Answers from memory (`verbose` reads one file); empty for an image that is not there. */
  imageStatus(call: Call, request: cri.ImageStatusRequest): Promise<Init<cri.ImageStatusResponse>>;
  /** Answers from memory. */
  listImages(call: Call, request: cri.ListImagesRequest): Promise<Init<cri.ListImagesResponse>>;
  /**
   * Removes an image under all its names. Idempotent. Layers that a container still uses stay until its root
   * filesystem is removed.
   */
  removeImage(call: Call, request: cri.RemoveImageRequest): Promise<Init<cri.RemoveImageResponse>>;
  /** Answers from memory: blocks and inodes counted when the layers were unpacked. */
  imageFsInfo(call: Call, request: cri.ImageFsInfoRequest): Promise<Init<cri.ImageFsInfoResponse>>;

  /** Pulls as `pullImage` does, and tells on the way how far it has come. */
  followPull(call: Call, request: berth.FollowPullRequest): AsyncIterable<Init<berth.FollowPullResponse>>;
  /**
   * Takes an archive of images, of docker or OCI, plain or compressed, and names what it brought. On failure nothing
   * of it is left.
   *
   * @throws {CriError} `InvalidArgument` for an archive that is malformed, hostile or has not what was asked for,
   *   `ResourceExhausted` for a full disk.
   */
  importImages(
    call: Call,
    requests: AsyncIterable<berth.ImportImagesRequest>,
  ): AsyncIterable<Init<berth.ImportImagesResponse>>;
  /**
   * Gives an archive of images in pieces: an OCI layout and a docker archive at once, layers uncompressed.
   *
   * @throws {CriError} `NotFound`; `DataLoss` when a layer is not what was unpacked, `FailedPrecondition` when it
   *   cannot be made an archive again.
   */
  exportImages(call: Call, request: berth.ExportImagesRequest): AsyncIterable<Init<berth.ExportImagesResponse>>;
  /**
   * Holds layers on the disk against their digests and names each; with `repair`, pulls again what is damaged.
   *
   * @throws {CriError} `NotFound`.
   */
  verifyImages(call: Call, request: berth.VerifyImagesRequest): AsyncIterable<Init<berth.VerifyImagesResponse>>;
  /** What is wrong with the files that say how registries are reached; what they said before is in force. */
  registryProblems(): readonly string[];
  /** How far the pulls under way have come. */
  pullsInProgress(): readonly PullProgress[];
  /** What pulls have come to since the start. */
  pullTotals(): PullTotals;
  /** From memory, as ImageFsInfo tells it. */
  storeUsage(): { readonly images: number; readonly usedBytes: number; readonly inodes: number };

  /**
   * By id, start of an id (three hex digits at least), or any spelling of a name.
   *
   * @throws {CriError} `InvalidArgument` for a malformed reference.
   */
  resolveImage(reference: string): StoredImage | undefined;
  /**
   * Asks the signature policy of a namespace whether an image that is there may be used; needs no network.
   *
   * @throws {CriError} `Unknown` starting with `SignatureValidationFailed: `.
   */
  requireAllowed(use: ImageUse, signal: AbortSignal): Promise<void>;
  /**
   * Mounts a writable root filesystem of the image at `target`, which is made if it is absent. With an owner, files of
   * the image's user n seem to be those of user `owner.uid` + n; with a label (a SELinux context) all have that one. On
   * failure nothing is left of it.
   *
   * @throws {CriError} `NotFound` if the image is gone, `AlreadyExists` if the container has one.
   */
  createRootfs(containerId: string, imageId: string, target: string, view?: RootfsView): Promise<void>;
  /**
   * Mounts an image read-only at `target` and keeps its layers for as long as the container has a root filesystem.
   * Whoever called it takes the mount down; nothing is lost of it with the daemon.
   *
   * @throws {CriError} `NotFound` if the image or the container's root filesystem is gone.
   */
  mountVolume(containerId: string, imageId: string, target: string, view?: RootfsView): Promise<void>;
  /**
   * Mounts a folder of the container's own at `target`, for a volume that its image declares: filled with what the
   * image has there, removed with the root filesystem.
   *
   * @throws {CriError} `InvalidArgument` if the image has something else there, `ResourceExhausted` for a full disk.
   */
  mountDeclaredVolume(containerId: string, volume: DeclaredVolume, signal: AbortSignal): Promise<void>;
  /** Unmounts and deletes it, with `target` itself. Idempotent. */
  removeRootfs(containerId: string, target: string, signal: AbortSignal): Promise<void>;
  /** Containers that have a root filesystem on disk, also from before a restart: what nobody knows is to be removed. */
  rootfsIds(): readonly string[];
  /** What the container has written, measured at most every 10 s in the background; undefined without a rootfs. */
  rootfsUsage(containerId: string): RootfsUsage | undefined;
}

const uuidBytes = 64;

/** Tells boots apart; what was not written through before a power cut is not trusted after it. */
async function readBootId(host: ImageHost): Promise<string> {
  const bytes = await host.readFileBounded("/proc/sys/kernel/random/boot_id", uuidBytes);
  return bytes?.toString("utf8").trim() ?? "";
}

const cpuinfoBytes = 16 << 20;

async function readPlatform(host: ImageHost): Promise<Platform> {
  const cpuinfo = await host.readFileBounded("/proc/cpuinfo", cpuinfoBytes).catch(() => undefined);
  return hostPlatform(cpuinfo?.toString("latin1"));
}

/** What is on the disk, and the threads that write it. */
interface Stores {
  readonly layers: LayerStore;
  readonly images: ImageStore;
  readonly rootfs: RootfsStore;
  readonly tokens: TokenCache;
  readonly pool: WorkerPool;
}

async function openStores(
  { config, log, host }: ImageServiceParts,
  registries: Registries,
  undo: AsyncDisposableStack,
): Promise<Stores> {
  const bootId = await readBootId(host);
  const layersDirectory = join(config.root, "layers");
  const layerFiles = createLayerFiles({ directory: layersDirectory, bootId, host, log });
  const layers = undo.use(await openLayerStore(layerFiles, log));
  const imageFiles = createImageFiles({ directory: join(config.root, "images"), host, log });
  const images = await openImageStore(imageFiles, layers, createPinning(config.pinned ?? []), registries.namesFor);
  const tokens = createTokenCache();
  const { maxWorkers: maxThreads, workerIdleMs: idleMs } = config;
  const onToken = (key: string, token: Token): void => tokens.set(key, token);
  const onIdle = (): void => void host.releaseMemory();
  const pool = undo.use(createWorkerPool({ onToken, onIdle, maxThreads, idleMs }));
  const rootfs = undo.use(
    await openRootfsStore({
      directory: join(config.root, "containers"),
      layersDirectory,
      mountpoint: config.root,
      layers,
      host,
      log,
    }),
  );
  return { layers, images, rootfs, tokens, pool };
}

/**
 * Opens the store below `config.root`: loads its images, removes what interrupted pulls, imports and removals left.
 *
 * @throws if the folders cannot be made or read.
 */
export async function createImageService(parts: ImageServiceParts): Promise<ImageService> {
  const { log, host } = parts;
  const config = { ...parts.config, platform: parts.config.platform ?? (await readPlatform(host)) };
  await mkdir(config.root, { recursive: true, mode: 0o700 });
  await using undo = new AsyncDisposableStack();
  const registries = await openRegistries({ config: config.registries, host, log });
  const { layers, images, rootfs, tokens, pool } = await openStores(parts, registries, undo);
  const trust = await openImageTrust({ host, places: config.trust, directory: join(config.root, "gpg") });
  const puller = undo.use(createImagePuller({ config, images, layers, pool, registries, tokens, trust, log }));
  await layers.sweep();
  const imports = join(config.root, "imports");
  await makeEmptyFolder(host, imports);
  const limits = { ...defaultLimits, ...config.limits };
  const { platform } = config;
  const stored = { images, layers, pool, limits };
  const owned = undo.move();
  const requireImage = (reference: string): StoredImage => {
    const image = findImage(images, reference);
    if (image === undefined) throw new CriError(Code.NotFound, `image ${quote(reference)} not found`);
    return image;
  };

  return {
    pullImage: (call, request) => puller.pullImage(call, request),
    imageStatus: (call, request) => imageStatus(images, call, request),
    listImages: (call, request) => listImages(images, call, request),
    removeImage: (call, request) => removeImage(images, call, request),
    imageFsInfo: async () => imageFsInfo(config.root, layers, rootfs),
    followPull: (call, request) => followPull({ puller, images }, call, request),
    importImages: (call, requests) => importImages({ ...stored, directory: imports, platform, host }, call, requests),
    exportImages: (call, request) => exportImages(stored, call, request),
    verifyImages: (call, request) => verifyImages({ ...stored, puller }, call, request),
    registryProblems: () => registries.problems(),
    pullsInProgress: () => puller.progress(),
    pullTotals: () => puller.totals(),
    storeUsage: () => ({ images: images.list().length, ...layers.usage() }),
    resolveImage: (reference) => findImage(images, reference),
    requireAllowed: (use, signal) => requireImageAllowed(trust, use, signal),
    async createRootfs(containerId, imageId, target, view) {
      await rootfs.create(containerId, requireImage(imageId), { ...view, target });
    },
    async mountVolume(containerId, imageId, target, view) {
      await rootfs.mountVolume(containerId, requireImage(imageId), { ...view, target });
    },
    mountDeclaredVolume: (containerId, volume, signal) => rootfs.mountDeclaredVolume(containerId, volume, signal),
    removeRootfs: (containerId, target, signal) => rootfs.remove(containerId, target, signal),
    rootfsIds: () => rootfs.ids(),
    rootfsUsage: (containerId) => rootfs.usage(containerId),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
