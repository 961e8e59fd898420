import { createCni } from "../cni/index.ts";
import type { Logger } from "../cri-api/index.ts";
import { createImageService } from "../image-service/index.ts";
import type { ImageService } from "../image-service/index.ts";
import {
  bindMount,
  makeFolders,
  measureTree,
  mountOverlay,
  readFileBounded,
  releaseMemory,
  removeTree,
  resolveInRoot,
  run,
  spreadFolders,
  unmount,
  watchDirectory,
  which,
  writeFileAtomically,
} from "../native/index.ts";
import { createCdiRegistry, loadApparmorProfile } from "../oci/index.ts";
import { createRuntimeService, readHostFacts } from "../pod-sandbox/index.ts";
import type { RuntimeService } from "../pod-sandbox/index.ts";
import type { Config, Environment } from "./config.ts";
import type { Rooms } from "./daemon.ts";
import { imageHandlers } from "./image-service.ts";
import type { Metrics } from "./metrics/index.ts";
import { runtimeHandlers } from "./runtime-service.ts";
import { registriesConfig } from "./registry-files.ts";
import { openRuntimes } from "./runtimes.ts";
import { streamHandlers } from "./stream-urls.ts";
import { createStreamingServer } from "./streaming/index.ts";
import { readVersion } from "./version.ts";

export interface WiringParts {
  readonly config: Config;
  readonly environment: Environment;
  readonly log: Logger;
}

/** The rooms that do the work, without a transport. */
export interface Services extends AsyncDisposable {
  readonly pods: RuntimeService;
  readonly images: ImageService;
}

/** Opens the rooms with their parts of the configuration, those below first; they are disposed the other way round. */
export async function openServices(parts: WiringParts): Promise<Services> {
  const { config, environment, log } = parts;
  await using undo = new AsyncDisposableStack();

  const runtimes = await openRuntimes(parts);
  const network = undo.use(await createCni({ config: config.cni, log, run, watchDirectory }));
  const images = undo.use(
    await createImageService({
      config: {
        root: config.root,
        registries: registriesConfig(config.registries, environment),
        pinned: config.pinnedImages,
        trust: config.trust,
        retry: { progressTimeoutMs: config.pullProgressTimeoutMs },
      },
      log,
      host: {
        bindMount,
        makeFolders,
        measureTree,
        mountOverlay,
        unmount,
        releaseMemory,
        removeTree,
        resolveInRoot,
        writeFileAtomically,
        readFileBounded,
        run,
        spreadFolders,
        which,
      },
    }),
  );
  const { root, state, cgroupDriver, defaultRuntime, imageVolumes } = config;
  const pods = undo.use(
    await createRuntimeService({
      config: { root, state, cgroupDriver, defaultRuntime, imageVolumes, runtimeVersion: await readVersion() },
      runtimes,
      network,
      images,
      cdi: createCdiRegistry({ specDirs: config.cdiSpecDirs, log }),
      facts: await readHostFacts(await loadApparmorProfile(log)),
      log,
    }),
  );

  const open = undo.move();
  return { pods, images, [Symbol.asyncDispose]: () => open.disposeAsync() };
}

/** Loaded only where it is wanted. */
async function openMetrics(config: Config, images: ImageService, log: Logger): Promise<Metrics> {
  const { startMetrics } = await import("./metrics/index.ts");
  return await startMetrics({ config: config.metrics, version: await readVersion(), images, log });
}

/** The services, the streaming server before them, and who answers which RPC. */
export async function openRooms(parts: WiringParts): Promise<Rooms> {
  const { config, log } = parts;
  await using undo = new AsyncDisposableStack();
  const { pods, images } = undo.use(await openServices(parts));
  const streaming = undo.use(await createStreamingServer({ config: config.streaming, backend: pods.streams, log }));

  const metrics = config.metrics.port === 0 ? undefined : undo.use(await openMetrics(config, images, log));

  const open = undo.move();
  return {
    onRpcDone: metrics?.rpcTimes.add,
    handlers: { ...runtimeHandlers({ ...pods, ...streamHandlers(pods.streams, streaming) }), ...imageHandlers(images) },
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}
