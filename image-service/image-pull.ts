import { Code, CriError, type Call, type cri, type Init, type Logger } from "../cri-api/index.ts";
import type { ImageServiceConfig } from "./config.ts";
import type { Digest } from "./digest.ts";
import { hostPlatform } from "./platform.ts";
import { formatReference, type ImageReference, parseImageReference, repositoryOf } from "./reference.ts";
import { type Credentials, credentialsFingerprint, credentialsOf, serverAddressHost } from "./registry/credentials.ts";
import { type Endpoint, endpointsOf } from "./registry/endpoint.ts";
import { defaultLimits, defaultRetry } from "./registry/limits.ts";
import type { LayerDescriptor, Resolution } from "./registry/resolve.ts";
import type { TokenCache } from "./registry/tokens.ts";
import { createSharedWork } from "./shared-work.ts";
import type { ImageName, StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";
import type { LayerStore } from "./store/layer-store.ts";
import type { RegistryAccess } from "./worker/protocol.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

export interface PullParts {
  readonly config: ImageServiceConfig;
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly pool: WorkerPool;
  readonly tokens: TokenCache;
  readonly log: Logger;
}

/** PullImage. */
export interface ImagePuller extends AsyncDisposable {
  pullImage(call: Call, request: cri.PullImageRequest): Promise<Init<cri.PullImageResponse>>;
}

/** One pull under way, for however many callers. */
interface Pull {
  readonly parts: PullParts;
  readonly reference: ImageReference;
  readonly what: string;
  readonly credentials: Credentials | undefined;
  readonly signal: AbortSignal;
}

interface LayerTotals {
  downloadedBytes: number;
  unpackedBytes: number;
  unpackedLayers: number;
}

const dockerHubNames: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);

/** Credentials that name a server are for that server only. */
function credentialsFor(reference: ImageReference, auth: cri.AuthConfig | null): Credentials | undefined {
  const server = serverAddressHost(auth?.serverAddress ?? "");
  const isForUs =
    server === "" ||
    server === reference.domain ||
    (dockerHubNames.has(server) && dockerHubNames.has(reference.domain));
  return isForUs ? credentialsOf(auth) : undefined;
}

function accessOf(pull: Pull, endpoints: readonly Endpoint[]): RegistryAccess {
  const { config, tokens } = pull.parts;
  return {
    endpoints,
    credentials: pull.credentials,
    registries: config.registries,
    limits: { ...defaultLimits, ...config.limits },
    policy: { ...defaultRetry, ...config.retry },
    tokens: tokens.entries().filter(([key]) => endpoints.some(({ origin }) => key.startsWith(`${origin} `))),
  };
}

function nameOf(reference: ImageReference, digest: Digest): ImageName {
  return { repository: repositoryOf(reference), tag: reference.tag, digest, pulledAtMs: Date.now() };
}

async function resolve(pull: Pull, known: readonly Digest[]): Promise<{ resolution: Resolution; endpoint: Endpoint }> {
  const { reference, parts, what, signal } = pull;
  const { tag, digest } = reference;
  const platform = parts.config.platform ?? hostPlatform();
  const access = accessOf(pull, endpointsOf(parts.config.registries, reference));
  return await parts.pool.run(
    { kind: "resolve", what, access, options: { name: { tag, digest }, platform, known } },
    { signal },
  );
}

/** Digests that the store has under this very repository. */
function knownDigests({ parts, reference }: Pull): readonly Digest[] {
  const repository = repositoryOf(reference);
  const names = parts.images.list().flatMap((image) => image.names);
  return [...new Set(names.filter((name) => name.repository === repository).map(({ digest }) => digest))];
}

/** Makes all layers present; the first failure ends the others, and nothing runs on when this returns. */
async function fetchLayers(
  pull: Pull,
  wanted: readonly LayerDescriptor[],
  access: RegistryAccess,
): Promise<LayerTotals> {
  const { layers, pool } = pull.parts;
  const totals: LayerTotals = { downloadedBytes: 0, unpackedBytes: 0, unpackedLayers: 0 };
  const stop = new AbortController();
  const signal = AbortSignal.any([pull.signal, stop.signal]);
  const unique = new Map(wanted.map((layer) => [layer.diffId, layer]));
  const fetches = [...unique.values()].map((layer) =>
    layers.ensure(layer.diffId, signal, async (directory, shared) => {
      const job = { kind: "layer", what: pull.what, access, layer, directory } as const;
      const unpacked = await pool.run(job, { signal: shared });
      totals.downloadedBytes += layer.size;
      totals.unpackedBytes += unpacked.uncompressedBytes;
      totals.unpackedLayers += 1;
      return unpacked;
    }),
  );
  try {
    await Promise.all(fetches);
  } catch (thrown) {
    stop.abort();
    await Promise.allSettled(fetches);
    throw thrown;
  }
  return totals;
}

type Resolved = Extract<Resolution, { kind: "resolved" }>;

async function fetchImage(pull: Pull, resolved: Resolved, answered: Endpoint): Promise<StoredImage> {
  const { parts, reference } = pull;
  const hold = parts.layers.hold(resolved.layers.map(({ diffId }) => diffId));
  try {
    const startedAtMs = performance.now();
    const others = endpointsOf(parts.config.registries, reference).filter(({ host }) => host !== answered.host);
    const totals = await fetchLayers(pull, resolved.layers, accessOf(pull, [answered, ...others]));
    pull.signal.throwIfAborted();
    const { id, manifestDigest, layers, configJson } = resolved;
    const image = await parts.images.put(
      { id, manifestDigest, layers, configJson },
      nameOf(reference, resolved.targetDigest),
    );
    const elapsedMs = Math.round(performance.now() - startedAtMs);
    const fields = { image: formatReference(reference), imageId: id, host: answered.host, ...totals, elapsedMs };
    parts.log.info(fields, "image pulled");
    return image;
  } finally {
    await hold.release();
  }
}

async function pullOnce(pull: Pull): Promise<string> {
  const { parts, reference } = pull;
  const first = await resolve(pull, knownDigests(pull));
  let { resolution, endpoint } = first;
  if (resolution.kind === "known") {
    const { targetDigest } = resolution;
    const id = parts.images.byName(`${repositoryOf(reference)}@${targetDigest}`)?.id;
    const image = id === undefined ? undefined : await parts.images.addName(id, nameOf(reference, targetDigest));
    if (image !== undefined) return image.id;
    ({ resolution, endpoint } = await resolve(pull, [])); // it was removed meanwhile
  }
  if (resolution.kind === "known") throw new CriError(Code.Internal, `${pull.what}: the registry changed its mind`);
  const image = await fetchImage(pull, resolution, endpoint);
  void parts.layers.makeDurable();
  return image.id;
}

/** Pulls of one reference with the same credentials are one pull; each caller can leave it alone. */
export function createImagePuller(parts: PullParts): ImagePuller {
  const pulls = createSharedWork<string>();
  return {
    async pullImage(call, request) {
      const reference = parseImageReference(request.image?.image ?? "");
      const credentials = credentialsFor(reference, request.auth);
      const name = formatReference(reference);
      const key = `${name} ${credentialsFingerprint(credentials)}`;
      const what = `cannot pull "${name}"`;
      const imageRef = await pulls.join(key, call.signal, (signal) =>
        pullOnce({ parts, reference, what, credentials, signal }),
      );
      return { imageRef };
    },
    [Symbol.asyncDispose]: () => pulls[Symbol.asyncDispose](),
  };
}
