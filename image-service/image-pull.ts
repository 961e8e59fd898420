import { Code, CriError, type Call, type cri, type Init, type Logger } from "../cri-api/index.ts";
import type { ImageServiceConfig } from "./config.ts";
import type { Digest } from "./digest.ts";
import { requireTrusted } from "./image-signatures.ts";
import { hostPlatform } from "./platform.ts";
import { type PullProgress, type PullTotals, type PullTracker, trackPull } from "./pull-progress.ts";
import { formatReference, type ImageReference, repositoryOf } from "./reference.ts";
import type { PullAuth } from "./registries/pull-auth.ts";
import type { PullPlan, Registries } from "./registries/registries.ts";
import type { Endpoint } from "./registry/endpoint.ts";
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
  readonly registries: Registries;
  readonly tokens: TokenCache;
  readonly trust: ImageTrust;
  readonly log: Logger;
}

/** PullImage, and how far the pulls under way have come. */
export interface ImagePuller extends AsyncDisposable {
  pullImage(call: Call, request: cri.PullImageRequest): Promise<Init<cri.PullImageResponse>>;
  progress(): readonly PullProgress[];
  totals(): PullTotals;
}

/** One pull under way, for however many callers. */
interface Pull {
  readonly parts: PullParts;
  readonly reference: ImageReference;
  readonly what: string;
  /** What the pod's namespace allows. */
  readonly policy: Policy;
  readonly plan: PullPlan;
  readonly signal: AbortSignal;
  readonly tracker: PullTracker;
}

function accessOf(pull: Pull, endpoints: readonly Endpoint[]): RegistryAccess {
  const { config, tokens } = pull.parts;
  return {
    endpoints,
    network: pull.plan.network,
    limits: { ...defaultLimits, ...config.limits },
    policy: { ...defaultRetry, ...config.retry },
    tokens: tokens.entries().filter(([key]) => endpoints.some(({ address }) => key.startsWith(`${address} `))),
  };
}

function nameOf(reference: ImageReference, digest: Digest): ImageName {
  return { repository: repositoryOf(reference), tag: reference.tag, digest, pulledAtMs: Date.now() };
}

async function resolve(pull: Pull, known: readonly Digest[]): Promise<{ resolution: Resolution; endpoint: Endpoint }> {
  const { reference, parts, what, signal, tracker } = pull;
  const { tag, digest } = reference;
  const platform = parts.config.platform ?? hostPlatform();
  const { endpoints } = pull.plan;
  const access = accessOf(pull, tag === undefined ? endpoints : endpoints.filter(({ canResolve }) => canResolve));
  return await parts.pool.run(
    { kind: "resolve", what, access, options: { name: { tag, digest }, platform, known } },
    { signal, onHost: tracker.trying },
  );
}

/** Digests that the store has under this very repository, with no layer that is known to be damaged. */
function knownDigests({ parts, reference }: Pull): readonly Digest[] {
  const repository = repositoryOf(reference);
  const sound = parts.images.list().filter(({ layers }) => layers.every(({ diffId }) => parts.layers.isSound(diffId)));
  const names = sound.flatMap((image) => image.names);
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
      { signal: shared, onHost: tracker.trying, onProgress },
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
function loggedOf(progress: PullProgress): object {
  const { downloadedBytes, elapsedMs } = progress;
  return { ...progress, bytesPerSecond: Math.round((downloadedBytes * 1000) / Math.max(elapsedMs, 1)) };
}

type Resolved = Extract<Resolution, { kind: "resolved" }>;

/** The host that has answered, then the others. */
function endpointsFrom({ plan }: Pull, answered: Endpoint): readonly Endpoint[] {
  const placeOf = ({ address, apiPath, repository }: Endpoint): string => `${address}${apiPath}/${repository}`;
  return [answered, ...plan.endpoints.filter((endpoint) => placeOf(endpoint) !== placeOf(answered))];
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

/** What a short name may stand for is tried in order, as are mirrors; one success is enough. */
async function pullFirst(
  references: readonly ImageReference[],
  signal: AbortSignal,
  pullAs: (reference: ImageReference) => Promise<string>,
): Promise<string> {
  const failures: CriError[] = [];
  for (const reference of references) {
    try {
      return await pullAs(reference);
    } catch (thrown) {
      signal.throwIfAborted();
      if (!(thrown instanceof CriError) || references.length === 1) throw thrown;
      failures.push(thrown);
    }
  }
  const last = failures.at(-1);
  const texts = failures.toReversed().map(({ message }) => message); // the last one's code needs its word in front
  throw new CriError(last?.code ?? Code.Internal, texts.join("; "), { cause: last });
}

/** Pulls of one reference with the same credentials and policy are one pull; each caller can leave it alone. */
export function createImagePuller(parts: PullParts): ImagePuller {
  const pulls = createSharedWork<string>();
  const trackers = new Set<PullTracker>();
  const totals = { pulled: 0, failed: 0, downloadedBytes: 0 };

  async function tracked(wanted: Omit<Pull, "parts" | "plan" | "tracker">, auth: PullAuth): Promise<string> {
    const plan = await parts.registries.plan(wanted.reference, auth);
    const tracker = trackPull(formatReference(wanted.reference), plan.endpoints[0]?.host ?? "");
    trackers.add(tracker);
    const timer = setInterval(() => parts.log.info(loggedOf(tracker.snapshot()), "image pull goes on"), logIntervalMs);
    try {
      const id = await pullOnce({ ...wanted, parts, plan, tracker });
      totals.pulled += 1;
      return id;
    } catch (thrown) {
      totals.failed += 1;
      throw thrown;
    } finally {
      totals.downloadedBytes += tracker.snapshot().downloadedBytes;
      clearInterval(timer);
      trackers.delete(tracker);
    }
  }

  async function pullAs(
    reference: ImageReference,
    auth: PullAuth,
    namespace: string,
    caller: AbortSignal,
  ): Promise<string> {
    const name = formatReference(reference);
    const what = `cannot pull "${name}"`;
    const { policy, source } = await parts.trust.policyFor(namespace, what);
    const key = [name, auth.fingerprint, source].join(" ");
    return await pulls.join(key, caller, (signal) => tracked({ reference, what, policy, signal }, auth));
  }

  return {
    async pullImage(call, request) {
      await parts.registries.refresh();
      const references = parts.registries.candidates(request.image?.image ?? "");
      const auth = await parts.registries.authOf(request);
      const namespace = request.sandboxConfig?.metadata?.namespace ?? "";
      return {
        imageRef: await pullFirst(references, call.signal, (each) => pullAs(each, auth, namespace, call.signal)),
      };
    },
    totals: () => ({ ...totals }),
    progress: () => Array.from(trackers, (tracker) => tracker.snapshot()),
    [Symbol.asyncDispose]: () => pulls[Symbol.asyncDispose](),
  };
}
