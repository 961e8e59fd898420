import { Code, CriError, type Call, type cri, type Init, type Logger } from "../cri-api/index.ts";
import type { ImageServiceConfig } from "./config.ts";
import type { Digest } from "./digest.ts";
import { requireTrusted } from "./image-signatures.ts";
import { hostPlatform } from "./platform.ts";
import { type PullProgress, type PullTracker, trackPull } from "./pull-progress.ts";
import { formatReference, type ImageReference, parseImageReference, repositoryOf } from "./reference.ts";
import { type Credentials, credentialsFingerprint, credentialsOf, serverAddressHost } from "./registry/credentials.ts";
import { type Endpoint, endpointsOf } from "./registry/endpoint.ts";
import { defaultLimits, defaultRetry } from "./registry/limits.ts";
import type { LayerDescriptor, Resolution } from "./registry/resolve.ts";
import type { TokenCache } from "./registry/tokens.ts";
import { createSharedWork } from "./shared-work.ts";
import { storageFailure } from "./storage-failure.ts";
import type { ImageName, StoredImage } from "./store/image-record.ts";
import type { ImageStore } from "./store/image-store.ts";
import type { LayerStore } from "./store/layer-store.ts";
import type { ImageTrust } from "./trust/image-trust.ts";
import type { Policy } from "./trust/policy.ts";
import type { LayerProgress, RegistryAccess } from "./worker/protocol.ts";
import type { WorkerPool } from "./worker/worker-pool.ts";

export interface PullParts {
  readonly config: ImageServiceConfig;
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly pool: WorkerPool;
  readonly tokens: TokenCache;
  readonly trust: ImageTrust;
  readonly log: Logger;
}

/** PullImage, and how far the pulls under way have come. */
export interface ImagePuller extends AsyncDisposable {
  pullImage(call: Call, request: cri.PullImageRequest): Promise<Init<cri.PullImageResponse>>;
  progress(): readonly PullProgress[];
}

/** One pull under way, for however many callers. */
interface Pull {
  readonly parts: PullParts;
  readonly reference: ImageReference;
  readonly what: string;
  readonly credentials: Credentials | undefined;
  /** What the pod's namespace allows. */
  readonly policy: Policy;
  readonly signal: AbortSignal;
  readonly tracker: PullTracker;
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

async function fetchLayer(
  pull: Pull,
  layer: LayerDescriptor,
  access: RegistryAccess,
  signal: AbortSignal,
): Promise<void> {
  const { parts, tracker, what } = pull;
  const { diffId } = layer;
  await parts.layers.ensure(diffId, signal, async (directory, shared) => {
    tracker.fetching(layer);
    const onProgress = (progress: LayerProgress): void => tracker.advance(progress);
    const unpacked = await parts.pool.run(
      { kind: "layer", what, access, layer, directory },
      { signal: shared, onProgress },
    );
    tracker.advance({ diffId, downloadedBytes: layer.size, unpackedBytes: unpacked.uncompressedBytes });
    return unpacked;
  });
  tracker.layerDone();
}

/** Makes all layers present; the first failure ends the others, and nothing runs on when this returns. */
async function fetchLayers(pull: Pull, wanted: readonly LayerDescriptor[], access: RegistryAccess): Promise<void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([pull.signal, stop.signal]);
  const unique = new Map(wanted.map((layer) => [layer.diffId, layer]));
  const largestFirst = [...unique.values()].sort((left, right) => right.size - left.size);
  const fetches = largestFirst.map((layer) => fetchLayer(pull, layer, access, signal));
  try {
    await Promise.all(fetches);
  } catch (thrown) {
    stop.abort();
    await Promise.allSettled(fetches);
    throw thrown;
  }
}

/** How often a long pull says in the log how far it has come. */
const logIntervalMs = 15_000;

/** A pull as the log tells it: the speed is that of the whole. */
function loggedOf({ startedAtMs, ...facts }: PullProgress): object {
  const elapsedMs = Math.max(Date.now() - startedAtMs, 1);
  return { ...facts, elapsedMs, bytesPerSecond: Math.round((facts.downloadedBytes * 1000) / elapsedMs) };
}

type Resolved = Extract<Resolution, { kind: "resolved" }>;

/** The host that has answered, then the others. */
function endpointsFrom({ parts, reference }: Pull, answered: Endpoint): readonly Endpoint[] {
  const others = endpointsOf(parts.config.registries, reference).filter(({ host }) => host !== answered.host);
  return [answered, ...others];
}

async function fetchImage(pull: Pull, resolved: Resolved, answered: Endpoint): Promise<StoredImage> {
  const { parts, tracker } = pull;
  const kept = parts.images.byId(resolved.id)?.signatures ?? [];
  const subjects = [resolved.manifestDigest, resolved.targetDigest];
  const access = accessOf(pull, endpointsFrom(pull, answered));
  const signatures = await requireTrusted(pull, access, { subjects, kept });
  const hold = parts.layers.hold(resolved.layers.map(({ diffId }) => diffId));
  try {
    tracker.resolved(answered.host, resolved.layers);
    await fetchLayers(pull, resolved.layers, access);
    pull.signal.throwIfAborted();
    const { type, id, manifestDigest, configJson } = resolved;
    const layers = resolved.layers.map(({ diffId, digest, mediaType, size }) => ({ diffId, digest, mediaType, size }));
    const name = nameOf(pull.reference, resolved.targetDigest);
    const image = await parts.images.put({ type, id, manifestDigest, layers, configJson, signatures }, name);
    parts.log.info({ imageId: id, ...loggedOf(tracker.snapshot()) }, "image pulled");
    return image;
  } catch (thrown) {
    pull.signal.throwIfAborted();
    throw storageFailure(thrown, pull.what, "stored");
  } finally {
    await hold.release();
  }
}

/** Gives an image that is there the name it was asked for; nothing if it has gone meanwhile. */
async function nameKnown(pull: Pull, targetDigest: Digest, answered: Endpoint): Promise<StoredImage | undefined> {
  const { parts, reference } = pull;
  const known = parts.images.byName(`${repositoryOf(reference)}@${targetDigest}`);
  if (known === undefined) return undefined;
  const subjects = [known.manifestDigest, targetDigest];
  const access = accessOf(pull, endpointsFrom(pull, answered));
  const signatures = await requireTrusted(pull, access, { subjects, kept: known.signatures });
  return await parts.images.addName(known.id, nameOf(reference, targetDigest), signatures);
}

async function pullOnce(pull: Pull): Promise<string> {
  const { parts, reference } = pull;
  parts.trust.requireNoRefusal(pull.policy, reference, pull.what);
  const first = await resolve(pull, knownDigests(pull));
  let { resolution, endpoint } = first;
  if (resolution.kind === "known") {
    const image = await nameKnown(pull, resolution.targetDigest, endpoint);
    if (image !== undefined) return image.id;
    ({ resolution, endpoint } = await resolve(pull, [])); // it was removed meanwhile
  }
  if (resolution.kind === "known") throw new CriError(Code.Internal, `${pull.what}: the registry changed its mind`);
  const image = await fetchImage(pull, resolution, endpoint);
  void parts.layers.makeDurable();
  return image.id;
}

/** Pulls of one reference with the same credentials and policy are one pull; each caller can leave it alone. */
export function createImagePuller(parts: PullParts): ImagePuller {
  const pulls = createSharedWork<string>();
  const trackers = new Set<PullTracker>();

  async function tracked(wanted: Omit<Pull, "parts" | "tracker">): Promise<string> {
    const { reference } = wanted;
    const [first] = endpointsOf(parts.config.registries, reference);
    const tracker = trackPull(formatReference(reference), first?.host ?? "");
    trackers.add(tracker);
    const timer = setInterval(() => parts.log.info(loggedOf(tracker.snapshot()), "image pull goes on"), logIntervalMs);
    try {
      return await pullOnce({ ...wanted, parts, tracker });
    } finally {
      clearInterval(timer);
      trackers.delete(tracker);
    }
  }

  return {
    async pullImage(call, request) {
      const reference = parseImageReference(request.image?.image ?? "");
      const credentials = credentialsFor(reference, request.auth);
      const name = formatReference(reference);
      const what = `cannot pull "${name}"`;
      const { policy, source } = await parts.trust.policyFor(request.sandboxConfig?.metadata?.namespace ?? "", what);
      const key = [name, credentialsFingerprint(credentials), source].join(" ");
      const start = (signal: AbortSignal): Promise<string> => tracked({ reference, what, credentials, policy, signal });
      return { imageRef: await pulls.join(key, call.signal, start) };
    },
    progress: () => Array.from(trackers, (tracker) => tracker.snapshot()),
    [Symbol.asyncDispose]: () => pulls[Symbol.asyncDispose](),
  };
}
