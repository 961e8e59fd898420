import { join } from "node:path";
import type { Logger } from "../cri-api/index.ts";
import { untilAborted } from "../native/index.ts";
import { type ConfigDirectory, loadConfigDirectory, type LoadedList, type SkippedFile } from "./config-directory.ts";
import { createDirectoryWatch, type DirectoryWatch, type WatchDirectory } from "./directory-watch.ts";
import { type Network, toNetwork } from "./network-list.ts";
import type { PluginProbe } from "./plugin-probe.ts";
import { isAtLeast } from "./spec-version.ts";
import { createRefresher } from "./refresher.ts";
import { toOneLine } from "./text.ts";

/** Whether pods can be given a network now, for people to read in the node's NetworkReady condition. */
export type CniStatus =
  | { readonly ready: true; readonly networkName: string; readonly skipped: readonly SkippedFile[] }
  | { readonly ready: false; readonly message: string; readonly skipped: readonly SkippedFile[] };

/** The node's network as its files describe it, kept up to date. */
export interface NetworkSource extends AsyncDisposable {
  /** From memory; asks for a fresh look where the last is older than ten seconds. */
  status(): CniStatus;
  /** The network that pods are given, if it is ready. */
  current(): Network | undefined;
  /** The network that is chosen, ready or not: a plugin that cannot serve ADD may well serve DEL. */
  chosen(): Network | undefined;
  /** Resolves after a look at the files that began after this call; rejects with the signal's reason. */
  refresh(signal: AbortSignal): Promise<void>;
  /** Any network of the directory, newest version first, for a teardown that has no cached configuration. */
  findByName(name: string): Network | undefined;
}

export interface NetworkSourceParts {
  readonly config: {
    readonly confDir: string;
    readonly pluginDirs: readonly string[];
    readonly defaultNetwork?: string | undefined;
  };
  readonly log: Logger;
  readonly watchDirectory: WatchDirectory;
  readonly probe: PluginProbe;
  readonly now: () => number;
}

type State =
  | { readonly kind: "ready"; readonly network: Network; readonly file: string }
  | { readonly kind: "not-ready"; readonly message: string; readonly chosen?: Network };

interface Look {
  readonly state: State;
  readonly directory: ConfigDirectory;
  readonly takenAtMs: number;
}

const gatherChangesMs = 100;
// For what no watch tells: symlinked files, network file systems, and plugins' own STATUS.
const freshForMs = 10_000;
const probeTimeoutMs = 10_000;
// A plugin that hangs must not keep the daemon from starting.
const firstLookMs = 1000;

export async function createNetworkSource(parts: NetworkSourceParts): Promise<NetworkSource> {
  const closing = new AbortController();
  let look: Look = {
    state: { kind: "not-ready", message: "its plugins have not answered yet" },
    directory: { lists: [], skipped: [] },
    takenAtMs: 0,
  };
  const refresher = createRefresher(async () => {
    if (closing.signal.aborted) return;
    const taken = await takeLook(parts, watch, look, closing.signal);
    if (!closing.signal.aborted) logChanges(parts.log, look, taken);
    look = taken;
  });
  const gathered = createGatherer(() => void refresher.refresh());
  const watch = createDirectoryWatch({
    watchDirectory: parts.watchDirectory,
    log: parts.log,
    onChange: () => gathered.notice(),
  });
  await untilAborted(refresher.refresh(), AbortSignal.timeout(firstLookMs)).catch(() => undefined);
  return {
    status() {
      if (parts.now() - look.takenAtMs > freshForMs && !refresher.isRunning()) void refresher.refresh();
      const { skipped } = look.directory;
      if (look.state.kind === "ready") return { ready: true, networkName: look.state.network.name, skipped };
      return { ready: false, message: explain(look.state.message, skipped), skipped };
    },
    current: () => (look.state.kind === "ready" ? look.state.network : undefined),
    chosen: () => (look.state.kind === "ready" ? look.state.network : look.state.chosen),
    refresh: (signal) => untilAborted(refresher.refresh(), signal),
    findByName(name) {
      const loaded = look.directory.lists.find(({ list }) => list.name === name);
      return loaded && newestForm(loaded);
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      gathered.stop();
      await refresher.settle();
      await watch[Symbol.asyncDispose]();
    },
  };
}

/** Copying a plugin makes hundreds of events; only the first of a burst starts the clock, so a burst cannot starve us. */
function createGatherer(act: () => void): { notice(): void; stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  return {
    notice() {
      timer ??= setTimeout(() => {
        timer = undefined;
        act();
      }, gatherChangesMs);
    },
    stop: () => clearTimeout(timer),
  };
}

async function takeLook(
  { config, probe, now }: NetworkSourceParts,
  watch: DirectoryWatch,
  previous: Look,
  closing: AbortSignal,
): Promise<Look> {
  try {
    const directory = await loadWatched(watch, config, previous.directory);
    const signal = AbortSignal.any([closing, AbortSignal.timeout(probeTimeoutMs)]);
    const state = await evaluate(directory, config, probe, signal);
    return { state, directory, takenAtMs: now() };
  } catch (thrown) {
    const message = thrown instanceof Error ? toOneLine(thrown.message) : "unknown reason";
    return { ...previous, state: { kind: "not-ready", message }, takenAtMs: now() };
  }
}

/** Watches first and reads then, so that no change falls in between. */
async function loadWatched(
  watch: DirectoryWatch,
  { confDir, pluginDirs }: NetworkSourceParts["config"],
  previous: ConfigDirectory,
): Promise<ConfigDirectory> {
  await watch.follow([confDir, ...pluginDirs, ...foldersOf(previous, confDir)]);
  let directory = await loadConfigDirectory(confDir);
  for (let round = 0; round < 3; round += 1) {
    if (!(await watch.follow([confDir, ...pluginDirs, ...foldersOf(directory, confDir)]))) break;
    directory = await loadConfigDirectory(confDir);
  }
  return directory;
}

function foldersOf({ lists }: ConfigDirectory, confDir: string): readonly string[] {
  return lists.filter(({ list }) => !list.loadOnlyInlinedPlugins).map(({ list }) => join(confDir, list.name));
}

async function evaluate(
  { lists }: ConfigDirectory,
  { confDir, defaultNetwork }: NetworkSourceParts["config"],
  probe: PluginProbe,
  signal: AbortSignal,
): Promise<State> {
  const isNamed = defaultNetwork !== undefined && defaultNetwork !== "";
  const chosen = isNamed ? lists.find(({ list }) => list.name === defaultNetwork) : lists[0];
  if (chosen === undefined) {
    const what = isNamed ? `network ${JSON.stringify(defaultNetwork)} not found` : "no networks found";
    return { kind: "not-ready", message: `${what} in ${confDir}` };
  }
  const of = `network ${JSON.stringify(chosen.list.name)} (${chosen.file})`;
  const choice = await probe.chooseVersion(chosen.list, signal);
  if ("problem" in choice)
    return { kind: "not-ready", message: `${of}: ${choice.problem}`, chosen: newestForm(chosen) };
  const network = toNetwork(chosen.list, choice.version);
  const problem = isAtLeast(network.cniVersion, "1.1.0") ? await probe.checkStatus(network, signal) : undefined;
  if (problem !== undefined) return { kind: "not-ready", message: `${of}: ${problem}`, chosen: network };
  return { kind: "ready", network, file: chosen.file };
}

function newestForm({ list }: LoadedList): Network {
  return toNetwork(list, list.versions[0] ?? "0.1.0");
}

/** kubelet shows this text on the node; its first words are those people search for. */
function explain(message: string, skipped: readonly SkippedFile[]): string {
  const asides = skipped.map(({ file, reason }) => `skipped ${JSON.stringify(file)}: ${reason}`);
  return `cni plugin not initialized: ${[message, ...asides].join("; ")}`;
}

function logChanges(log: Logger, before: Look, after: Look): void {
  const known = new Set(before.directory.skipped.map(({ file, reason }) => `${file}\0${reason}`));
  for (const { file, reason } of after.directory.skipped) {
    if (!known.has(`${file}\0${reason}`)) log.warn({ file, reason }, "invalid cni configuration skipped");
  }
  const [was, is] = [summarize(before.state), summarize(after.state)];
  if (was === is) return;
  if (after.state.kind === "not-ready") log.warn({ reason: after.state.message }, "pod network not ready");
  else
    log.info(
      { network: after.state.network.name, file: after.state.file, cniVersion: after.state.network.cniVersion },
      "pod network ready",
    );
}

function summarize(state: State): string {
  return state.kind === "ready" ? `${state.network.name}\0${state.network.cniVersion}\0${state.file}` : state.message;
}
