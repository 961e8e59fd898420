import type { Code } from "../../cri-api/index.ts";
import type { Digest } from "../digest.ts";
import type { UnpackedLayer } from "../layer/unpack.ts";
import type { ImageReference } from "../reference.ts";
import type { Credentials } from "../registry/credentials.ts";
import type { Endpoint, Registries } from "../registry/endpoint.ts";
import type { PullLimits, RetryPolicy } from "../registry/limits.ts";
import type { LayerDescriptor, Resolution, ResolveOptions } from "../registry/resolve.ts";
import type { Token } from "../registry/tokens.ts";
import type { ImageSignature } from "../trust/signature.ts";

/** Where and as whom to ask. */
export interface RegistryAccess {
  /** Tried in order. */
  readonly endpoints: readonly Endpoint[];
  readonly credentials: Credentials | undefined;
  readonly registries: Registries;
  readonly limits: PullLimits;
  readonly policy: RetryPolicy;
  /** Bearer tokens that are known already. */
  readonly tokens: readonly (readonly [key: string, token: Token])[];
}

export interface ResolveJob {
  readonly kind: "resolve";
  /** What is being pulled, for errors. */
  readonly what: string;
  readonly access: RegistryAccess;
  readonly options: Omit<ResolveOptions, "limits" | "policy">;
}

export interface LayerJob {
  readonly kind: "layer";
  readonly what: string;
  readonly access: RegistryAccess;
  readonly layer: LayerDescriptor;
  /** An empty folder; it is the main thread's to remove. */
  readonly directory: string;
}

/** Looks for the signatures of manifests, beside the registry and in it. */
export interface SignaturesJob {
  readonly kind: "signatures";
  readonly what: string;
  readonly access: RegistryAccess;
  readonly reference: ImageReference;
  readonly subjects: readonly Digest[];
  /** Holds the files that tell where signatures are. */
  readonly registriesDirectory: string;
}

export type Job = ResolveJob | LayerJob | SignaturesJob;

export interface ResolveResult {
  readonly resolution: Resolution;
  /** The host that answered. */
  readonly endpoint: Endpoint;
}

export interface LayerResult extends UnpackedLayer {
  readonly host: string;
}

export type JobResult<T extends Job> = T extends ResolveJob
  ? ResolveResult
  : T extends LayerJob
    ? LayerResult
    : readonly ImageSignature[];

/** How far a layer has come. */
export interface LayerProgress {
  readonly diffId: Digest;
  readonly downloadedBytes: number;
  readonly unpackedBytes: number;
}

/** What a thread is given at its start. */
export interface ThreadData {
  /** Compiled code is kept there between threads; absent when the main thread keeps none. */
  readonly compileCacheDirectory: string | undefined;
}

export type ToWorker =
  | { readonly kind: "start"; readonly id: number; readonly job: Job }
  | { readonly kind: "abort"; readonly id: number };

export type FromWorker =
  | { readonly kind: "done"; readonly id: number; readonly result: JobResult<Job> }
  | { readonly kind: "failed"; readonly id: number; readonly code: Code; readonly message: string }
  | { readonly kind: "progress"; readonly id: number; readonly progress: LayerProgress }
  | { readonly kind: "token"; readonly key: string; readonly token: Token };
