import type { Code } from "../../cri-api/index.ts";
import type { ArchivedLayer, Selection } from "../archive/contents.ts";
import type { NamedImage } from "../archive/names.ts";
import type { Digest } from "../digest.ts";
import type { UnpackedLayer } from "../layer/unpack.ts";
import type { ImageReference } from "../reference.ts";
import type { Endpoint, NetworkSettings } from "../registry/endpoint.ts";
import type { PullLimits, RetryPolicy } from "../registry/limits.ts";
import type { ArtifactFile } from "../registry/manifest.ts";
import type { LayerDescriptor, Resolution, ResolveOptions } from "../registry/resolve.ts";
import type { Token } from "../registry/tokens.ts";
import type { ImageSignature } from "../trust/signature.ts";

/** Where and as whom to ask. */
export interface RegistryAccess {
  /** Tried in order. */
  readonly endpoints: readonly Endpoint[];
  readonly network: NetworkSettings;
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

/** Finds the images of an archive on the disk. */
export interface ReadArchiveJob {
  readonly kind: "read-archive";
  readonly what: string;
  /** A file of ours; when it is compressed, the plain archive is put beside it. */
  readonly path: string;
  readonly selection: Selection;
  /** The name that the caller gives; empty for the archive's own. */
  readonly name: string;
}

/** Unpacks a layer out of an archive. */
export interface UnpackJob {
  readonly kind: "unpack";
  readonly what: string;
  /** The plain archive. */
  readonly path: string;
  readonly layer: ArchivedLayer;
  /** As of a {@link LayerJob}. */
  readonly directory: string;
  readonly limits: PullLimits;
}

/** A layer on the disk. */
export interface StoredLayer {
  readonly directory: string;
  readonly diffId: Digest;
  readonly limits: PullLimits;
}

/** Gives the archive of an unpacked layer, in pieces, and fails at its end when that is not what was unpacked. */
export interface ReassembleJob extends StoredLayer {
  readonly kind: "reassemble";
  readonly what: string;
  /** Of an artifact's layer, this one file instead. */
  readonly file?: ArtifactFile | undefined;
}

/** Holds an unpacked layer against its digest. */
export interface VerifyJob extends StoredLayer {
  readonly kind: "verify";
  /** Of an artifact's layer, whose files have digests of their own. */
  readonly files?: readonly ArtifactFile[] | undefined;
}

export type Job = ResolveJob | LayerJob | SignaturesJob | ReadArchiveJob | UnpackJob | ReassembleJob | VerifyJob;

export interface ArchiveContents {
  /** The plain archive. */
  readonly path: string;
  readonly images: readonly NamedImage[];
}

/** What a look at a layer has shown; without its archive's skeleton there is nothing to compare with. */
export interface Verdict {
  readonly outcome: "whole" | "damaged" | "unchecked";
  readonly detail: string;
}

export interface ResolveResult {
  readonly resolution: Resolution;
  /** The host that answered. */
  readonly endpoint: Endpoint;
}

export interface LayerResult extends UnpackedLayer {
  readonly host: string;
}

export interface FoundSignatures {
  readonly signatures: readonly ImageSignature[];
  /** Whether there are, instead of sigstore's signatures, bundles of them, which no policy can be asked about. */
  readonly hasBundles: boolean;
}

interface Results {
  readonly resolve: ResolveResult;
  readonly layer: LayerResult;
  readonly signatures: FoundSignatures;
  readonly "read-archive": ArchiveContents;
  readonly unpack: LayerResult;
  readonly reassemble: undefined;
  readonly verify: Verdict;
}
export type JobResult<T extends Job> = Results[T["kind"]];

/** How far a layer has come. */
export interface LayerProgress {
  readonly diffId: Digest;
  readonly downloadedBytes: number;
  readonly unpackedBytes: number;
}

/** Pieces of a {@link ReassembleJob} that may be on their way at once. */
export const maxPieces = 4;

export type ToWorker =
  | { readonly kind: "taken"; readonly id: number }
  | { readonly kind: "start"; readonly id: number; readonly job: Job }
  | { readonly kind: "abort"; readonly id: number };

export type FromWorker =
  | { readonly kind: "done"; readonly id: number; readonly result: JobResult<Job> }
  | { readonly kind: "failed"; readonly id: number; readonly code: Code; readonly message: string }
  | { readonly kind: "host"; readonly id: number; readonly host: string }
  | { readonly kind: "progress"; readonly id: number; readonly progress: LayerProgress }
  | { readonly kind: "piece"; readonly id: number; readonly bytes: Uint8Array }
  | { readonly kind: "token"; readonly key: string; readonly token: Token };
