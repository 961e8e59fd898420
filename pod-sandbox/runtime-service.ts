import type { Call, Init, Logger, MethodName, Methods } from "../cri-api/index.ts";
import { Code, CriError, loadJsonCodecs } from "../cri-api/index.ts";
import { readCgroupMounts } from "../oci/index.ts";
import type { CdiRegistry, HostFacts, Runtime } from "../oci/index.ts";
import { createKeyedLock, endStrayHelpers, releaseMemory } from "../native/index.ts";
import { createClock } from "./clock.ts";
import { createContainer } from "./container-create.ts";
import { createContainerEvents, getContainerEvents } from "./container-events.ts";
import { execSync } from "./container-exec-sync.ts";
import { listContainers, toCriContainer } from "./container-list.ts";
import { reopenContainerLog } from "./container-log-reopen.ts";
import { removeContainer } from "./container-remove.ts";
import { startContainer } from "./container-start.ts";
import { containerStats, listContainerStats } from "./container-stats.ts";
import { containerStatus } from "./container-status.ts";
import { createContainerStreams } from "./container-streams.ts";
import type { ContainerStreams } from "./container-streams.ts";
import { stopContainer } from "./container-stop.ts";
import { updateContainerResources } from "./container-update-resources.ts";
import { createCreations } from "./creations.ts";
import { createExitWatch } from "./exit-watch.ts";
import type { Host, Images, Network, PodSandboxConfig } from "./host.ts";
import { layoutOf, makeDirectories } from "./layout.ts";
import { collectNetworkGarbage } from "./network-garbage.ts";
import { installPauseRootfs } from "./pause.ts";
import { createListItems } from "./list-items.ts";
import { createSelinuxLevels } from "./selinux.ts";
import { openRecordStore } from "./record-store.ts";
import { containerFormat, sandboxFormat } from "./records.ts";
import { recover } from "./recover.ts";
import { atRest } from "./rest.ts";
import { runtimeConfig, status, updateRuntimeConfig, version } from "./runtime-status.ts";
import { listPodSandbox, toCriSandbox } from "./sandbox-list.ts";
import { listMetricDescriptors, listPodSandboxMetrics } from "./sandbox-metrics.ts";
import { removePodSandbox } from "./sandbox-remove.ts";
import { runPodSandbox } from "./sandbox-run.ts";
import { forgetEnded, listPodSandboxStats, podSandboxStats } from "./sandbox-stats.ts";
import { podSandboxStatus } from "./sandbox-status.ts";
import { stopPodSandbox } from "./sandbox-stop.ts";
import { updatePodSandboxResources } from "./sandbox-update-resources.ts";
import { createStatsReader } from "./stats-reader.ts";
import { createStopLoops } from "./stop-loop.ts";

/** Longest time RunPodSandbox or CreateContainer may work, whoever waits for it: kubelet's own limit is 4 minutes. */
const createDeadlineMs = 240_000;

/** So long after the last change of a record, what all the work before took of memory is given back. */
const restMs = 2000;

type Rpc<Name extends MethodName> = (
  call: Call,
  request: Methods[Name]["request"],
  host: Host,
) => Promise<Init<Methods[Name]["response"]>>;

const rpcs = {
  Version: version,
  Status: status,
  RuntimeConfig: runtimeConfig,
  UpdateRuntimeConfig: updateRuntimeConfig,
  RunPodSandbox: runPodSandbox,
  StopPodSandbox: stopPodSandbox,
  RemovePodSandbox: removePodSandbox,
  PodSandboxStatus: podSandboxStatus,
  ListPodSandbox: listPodSandbox,
  CreateContainer: createContainer,
  StartContainer: startContainer,
  StopContainer: stopContainer,
  RemoveContainer: removeContainer,
  ListContainers: listContainers,
  ContainerStatus: containerStatus,
  ExecSync: execSync,
  ReopenContainerLog: reopenContainerLog,
  ContainerStats: containerStats,
  ListContainerStats: listContainerStats,
  PodSandboxStats: podSandboxStats,
  ListMetricDescriptors: listMetricDescriptors,
  ListPodSandboxMetrics: listPodSandboxMetrics,
  UpdatePodSandboxResources: updatePodSandboxResources,
  ListPodSandboxStats: listPodSandboxStats,
  UpdateContainerResources: updateContainerResources,
} as const satisfies { readonly [Name in MethodName]?: Rpc<Name> };

type StreamRpc<Name extends MethodName> = (
  call: Call,
  request: Methods[Name]["request"],
  host: Host,
) => AsyncIterable<Init<Methods[Name]["response"]>>;

const streamRpcs = {
  GetContainerEvents: getContainerEvents,
} as const satisfies { readonly [Name in MethodName]?: StreamRpc<Name> };

/** The RPCs that pods and containers answer, by their names in the contract. */
export type RuntimeService = AsyncDisposable & {
  /** What the streaming server opens behind the URLs of Exec, Attach and PortForward. */
  readonly streams: ContainerStreams;
} & {
  readonly [Name in keyof typeof rpcs]: (
    call: Call,
    request: Methods[Name]["request"],
  ) => Promise<Init<Methods[Name]["response"]>>;
} & {
  readonly [Name in keyof typeof streamRpcs]: (
    call: Call,
    request: Methods[Name]["request"],
  ) => AsyncIterable<Init<Methods[Name]["response"]>>;
};

export interface RuntimeServiceParts {
  readonly config: PodSandboxConfig;
  readonly runtimes: ReadonlyMap<string, Runtime>;
  readonly network: Network;
  readonly images: Images;
  readonly cdi: CdiRegistry;
  readonly facts: HostFacts;
  readonly log: Logger;
}

/**
 * Reads the records of the daemon before, takes up again what still runs, finishes what was left half done, and
 * answers RPCs from then on. Disposing it waits for creates to undo themselves and leaves containers running.
 */
export async function createRuntimeService(parts: RuntimeServiceParts): Promise<RuntimeService> {
  const strays = await endStrayHelpers();
  if (strays > 0) parts.log.warn({ count: strays }, "ended helpers that the daemon before had left waiting");
  const host = await openHost(parts);
  await recover(host);
  const closing = new AbortController();
  const collecting = collectNetworkGarbage(host, closing.signal);
  atRest([host.sandboxes, host.containers], restMs, () => void releaseMemory());
  const service = Object.fromEntries(
    Object.entries({ ...rpcs, ...streamRpcs }).map(([name, rpc]) => [
      name,
      (call: Call, request: never) => rpc(call, request, host),
    ]),
  ) as Omit<RuntimeService, typeof Symbol.asyncDispose | "streams">;
  return {
    ...service,
    streams: createContainerStreams(host),
    async [Symbol.asyncDispose]() {
      closing.abort(new CriError(Code.Unavailable, "Berth is shutting down"));
      await host.creations.abandonAll("the daemon is shutting down");
      await collecting;
      await host.exits[Symbol.asyncDispose]();
    },
  };
}

/** Makes the directories, reads the records as the daemon before left them, and puts the parts together. */
export async function openHost(parts: RuntimeServiceParts): Promise<Host> {
  const { config, log } = parts;
  const layout = layoutOf(config.root, config.state);
  await makeDirectories(layout);
  await installPauseRootfs(layout, parts.facts);
  const codecs = loadJsonCodecs();
  const sandboxes = await openRecordStore(layout.sandboxRecords, sandboxFormat(codecs), log);
  const containers = await openRecordStore(layout.containerRecords, containerFormat(codecs), log);
  const exits = createExitWatch({ ...parts, layout, sandboxes, containers });
  const clock = createClock();
  const stats = createStatsReader();
  forgetEnded(stats, { sandboxes, containers });
  return {
    ...parts,
    layout,
    sandboxes,
    containers,
    listItems: { sandbox: createListItems(toCriSandbox), container: createListItems(toCriContainer) },
    clock,
    events: createContainerEvents({ records: { sandboxes, containers }, clock }),
    exits,
    creations: createCreations(createDeadlineMs),
    stops: createStopLoops({ ...parts, containers, exits }),
    operations: createKeyedLock(),
    stats,
    cgroupMounts: await readCgroupMounts(),
    drawSelinuxLevel: createSelinuxLevels(sandboxes),
    noResources: codecs.LinuxContainerResources.fromJson({}),
  };
}
