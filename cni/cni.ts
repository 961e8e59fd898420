import { setTimeout } from "node:timers/promises";
import { type Call, Code, CriError, type Logger } from "../cri-api/index.ts";
import { createKeyedLock } from "../native/index.ts";
import { type Attachment, validateAttachment } from "./attachment.ts";
import { createAttachmentGate } from "./attachment-gate.ts";
import { type AttachmentName, createAttachmentMemory } from "./attachment-memory.ts";
import { attach, type AttachmentParts, checkAttachment, detach, findResult } from "./attachments.ts";
import type { WatchDirectory } from "./directory-watch.ts";
import { collectGarbage } from "./garbage-collection.ts";
import { type CniStatus, createNetworkSource } from "./network-source.ts";
import { createPluginProbe } from "./plugin-probe.ts";
import type { RunProcess } from "./plugin-run.ts";
import { createResultCache } from "./result-cache.ts";
import type { CniResult } from "./result.ts";
import { endStrayPlugins } from "./stray-plugins.ts";
import { createVanguard } from "./vanguard.ts";

export interface CniConfig {
  /** Where the network configurations lie; need not exist yet. */
  readonly confDir: string;
  /** Where the plugins lie, tried in order. */
  readonly pluginDirs: readonly string[];
  /** `/var/lib/cni` to share it with other runtimes; results lie in `results` below. */
  readonly cacheDir: string;
  /** Name of the network to use; absent or empty: that of the first valid file. */
  readonly defaultNetwork?: string | undefined;
}

/** The node's pod network. */
export interface Cni extends AsyncDisposable {
  /** Answers from memory. */
  status(): CniStatus;
  /**
   * Runs ADD. If it fails, DEL of the whole list has been run when this rejects; if that DEL failed too, it rejects
   * with a `SuppressedError` that suppresses the first cause, and `del` is still owed.
   *
   * @throws {CriError} `Unavailable` if there is no usable network or the plugin asks to try again later,
   *   `AlreadyExists` if the attachment exists, `InvalidArgument` for names that CNI cannot carry,
   *   `FailedPrecondition` for what is wrong with the node's plugins or their configuration, `Internal` for other
   *   failures of plugins, `Canceled` or `DeadlineExceeded` by the call.
   */
  add(call: Call, attachment: Attachment): Promise<CniResult>;
  /**
   * Runs DEL with the configuration and arguments of the ADD. Idempotent; `netnsPath` may be empty or stale. An
   * attachment that is unknown is deleted from the present network, once.
   *
   * @throws {CriError} as `add`; the attachment is then still there for the next try.
   */
  del(attachment: Attachment, signal: AbortSignal): Promise<void>;
  /** Runs CHECK, unless the network disables it. @throws {CriError} what a plugin found wrong. */
  check(call: Call, attachment: Attachment): Promise<void>;
  /**
   * Tells the network which attachments are alive: cached ones that are not are deleted, then plugins of spec 1.1.0
   * are sent GC. Attachments added by this object are alive without being named.
   *
   * @throws {CriError} `Unavailable` if the network is not ready; else the first failure, after everything was tried.
   */
  collectGarbage(attachments: readonly AttachmentName[], signal: AbortSignal): Promise<void>;
  /**
   * For the start, before what a daemon before has left half done is undone: kills the plugins that are still at work
   * on these containers.
   *
   * @returns how many there were.
   * @throws `signal.reason` where one of them does not die in time.
   */
  endStrayPlugins(containerIds: readonly string[], signal: AbortSignal): Promise<number>;
  /** What ADD returned, from disk; undefined if the attachment does not exist. */
  cachedResult(attachment: AttachmentName): Promise<CniResult | undefined>;
}

/** The live parts that the server hands in. */
export interface CniParts {
  readonly config: CniConfig;
  readonly log: Logger;
  readonly run: RunProcess;
  readonly watchDirectory: WatchDirectory;
}

const undoTimeoutMs = 60_000; // CRI-O's for DEL
const collectTimeoutMs = 30_000; // CRI-O's for GC

/** Reads the configuration, asks the plugins for their versions, and keeps watching until it is disposed. */
export async function createCni(parts: CniParts): Promise<Cni> {
  const { config, log, watchDirectory } = parts;
  const wait = (ms: number, signal: AbortSignal): Promise<unknown> => setTimeout(ms, undefined, { signal });
  const cache = createResultCache(config.cacheDir);
  await cache.sweep();
  const chain = { run: parts.run, wait, log, pluginDirs: config.pluginDirs };
  const probe = createPluginProbe(chain);
  const source = await createNetworkSource({ config, log, watchDirectory, probe, now: () => performance.now() });
  const [memory, vanguard] = [createAttachmentMemory(), createVanguard()];
  return assemble({ chain, cache, source, memory, vanguard, log, undoTimeoutMs });
}

function assemble(parts: AttachmentParts): Cni {
  const lock = createKeyedLock();
  const gate = createAttachmentGate();

  function alone<T>(containerId: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    return lock.run(containerId, signal, () => gate.shared(signal, work));
  }

  return {
    status: () => parts.source.status(),
    async add(call, attachment) {
      validateAttachment(attachment);
      if (attachment.netnsPath === "") throw new CriError(Code.InvalidArgument, "network namespace path is empty");
      return alone(attachment.containerId, call.signal, () => attach(parts, call, attachment));
    },
    async del(attachment, signal) {
      validateAttachment(attachment);
      await alone(attachment.containerId, signal, () => detach(parts, attachment, signal));
    },
    async check(call, attachment) {
      validateAttachment(attachment);
      await alone(attachment.containerId, call.signal, () => checkAttachment(parts, call, attachment));
    },
    async collectGarbage(attachments, signal) {
      const limited = AbortSignal.any([signal, AbortSignal.timeout(collectTimeoutMs)]);
      await collectGarbage({ ...parts, gate, alone }, attachments, limited);
    },
    endStrayPlugins,
    cachedResult: (attachment) => findResult(parts.cache, attachment),
    [Symbol.asyncDispose]: () => parts.source[Symbol.asyncDispose](),
  };
}
