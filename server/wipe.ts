import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import type { Call, Logger, MethodName } from "../cri-api/index.ts";
import { readMountTable, removeTree, unmount } from "../native/index.ts";
import type { Config } from "./config.ts";
import type { Services } from "./wiring.ts";

/** Longest time one mount may take to go. */
const unmountMs = 30_000;

/** What the rooms make in the two directories. Whatever else lies there is not ours to delete. */
export const ourEntries: ReadonlySet<string> = new Set([
  "containers",
  "gpg",
  "images",
  "imports",
  "layers",
  "pause",
  "pod-sandboxes",
  "runtimes",
]);

/** Wiping was refused; nothing was touched. */
export class WipeRefused extends Error {
  override readonly name = "WipeRefused";
}

export interface WipeParts {
  readonly config: Pick<Config, "root" | "state" | "socket">;
  /** Opens the rooms; the directories are claimed already. */
  readonly openServices: () => Promise<Services>;
  /** Running containers are killed, and what cannot be taken down is passed over. */
  readonly isForced: boolean;
  readonly log: Logger;
}

export interface WipeReport {
  readonly podSandboxes: number;
  readonly images: number;
  /** What could not be taken down. Unless forced, the directories are kept then, for another try. */
  readonly failures: readonly string[];
}

/**
 * Takes down every pod, its network included, removes every image, and then the directories of our state.
 *
 * @throws {WipeRefused} where containers run and it is not forced.
 */
export async function wipe(parts: WipeParts): Promise<WipeReport> {
  const report = await takeEverythingDown(parts);
  if (report.failures.length > 0 && !parts.isForced) return report;
  const { root, state, socket } = parts.config;
  await unmountBelow([root, state]);
  await rm(socket, { force: true }); // of a daemon that was killed
  const left = [...(await removeDirectory(state)), ...(await removeDirectory(root))];
  return { ...report, failures: [...report.failures, ...left.map((path) => `"${path}" is not ours, it was left`)] };
}

/** Removes what is ours in a directory, and the directory if that was all. Answers what was left. */
async function removeDirectory(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory);
  const left = entries.filter((entry) => !ourEntries.has(entry));
  for (const entry of entries) if (ourEntries.has(entry)) await removeTree(join(directory, entry));
  if (left.length === 0) await rmdir(directory);
  return left.map((entry) => join(directory, entry));
}

async function takeEverythingDown({ openServices, isForced, log }: WipeParts): Promise<WipeReport> {
  await using services = await openServices();
  const { pods, images } = services;
  const call = (rpc: MethodName): Call => ({ requestId: "wipe", rpc, signal: new AbortController().signal, log });

  const { containers } = await pods.ListContainers(call("ListContainers"), { filter: null });
  const running = (containers ?? []).filter(({ state }) => state === "CONTAINER_RUNNING").length;
  if (running > 0 && !isForced) throw new WipeRefused(`${running} containers are running; --force kills them`);

  const podIds = idsOf((await pods.ListPodSandbox(call("ListPodSandbox"), { filter: null })).items);
  const podFailures = await failuresOf("pod sandbox", podIds, async (podSandboxId) => {
    await pods.StopPodSandbox(call("StopPodSandbox"), { podSandboxId });
    await pods.RemovePodSandbox(call("RemovePodSandbox"), { podSandboxId });
  });
  const imageIds = idsOf((await images.listImages(call("ListImages"), { filter: null })).images);
  const imageFailures = await failuresOf("image", imageIds, async (id) => {
    const image = { image: id, annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" };
    await images.removeImage(call("RemoveImage"), { image });
  });
  return { podSandboxes: podIds.length, images: imageIds.length, failures: [...podFailures, ...imageFailures] };
}

function idsOf(items: readonly { readonly id?: string | null | undefined }[] | null | undefined): readonly string[] {
  return (items ?? []).map(({ id }) => id ?? "");
}

async function failuresOf(
  kind: string,
  ids: readonly string[],
  remove: (id: string) => Promise<void>,
): Promise<readonly string[]> {
  const outcomes = await Promise.allSettled(ids.map(remove));
  return outcomes.flatMap((outcome, index) =>
    outcome.status === "rejected" ? [`${kind} "${ids[index]}": ${String(outcome.reason)}`] : [],
  );
}

/** Whatever is still mounted there belongs to nobody: newest first, as it was stacked. */
async function unmountBelow(directories: readonly string[]): Promise<void> {
  const table = await readMountTable();
  const left = table.filter(({ mountPoint }) =>
    directories.some((directory) => mountPoint.startsWith(`${directory}/`)),
  );
  for (const { mountPoint } of left.toReversed()) await unmount(mountPoint, { signal: AbortSignal.timeout(unmountMs) });
}
