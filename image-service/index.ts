/** Opens the image store and answers the CRI's ImageService from it. */
export { createImageService } from "./image-service.ts";
export type { ImageService, ImageServiceParts } from "./image-service.ts";
/** Its configuration, and what it needs of the machine. */
export type { ImageServiceConfig, TrustConfig } from "./config.ts";
export type { ImageHost } from "./host.ts";
/** Where the files lie that say how registries are reached, and what the environment adds. */
export type { RegistriesConfig } from "./registries/config.ts";
export { examineRegistries } from "./registries/registries.ts";
/** An image in the store, and the part of its config that running a container needs. */
export type { ImageConfig } from "./image-config.ts";
export type { StoredImage } from "./store/image-record.ts";
/** Signature policies, for whoever looks at them before they count. */
export { type KeySource, parsePolicy, type Policy, type Requirement } from "./trust/policy.ts";
export { defaultPolicyPath } from "./trust/policy-files.ts";
/** A wish to use an image, for the signature policy to allow. */
export type { ImageUse } from "./image-allow.ts";
/** A volume that an image declares, for one container. */
export type { DeclaredVolume } from "./declared-volume.ts";
/** How far a pull has come. */
export type { PullProgress } from "./pull-progress.ts";
/** What a container has written to its root filesystem. */
export type { RootfsUsage } from "./rootfs.ts";
/** Whom it seems to belong to, and under which label. */
export type { RootfsOwner, RootfsView } from "./rootfs-mount.ts";
