import { randomInt } from "node:crypto";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import { relabel } from "../native/index.ts";
import { buildSelinuxLabels, isUnconfinedBySelinux } from "../oci/index.ts";
import type { ResolvedMount, SelinuxLabels } from "../oci/index.ts";
import type { Host } from "./host.ts";
import type { RecordStore } from "./record-store.ts";
import type { Sandbox } from "./sandbox.ts";

/** As every policy with categories has them. */
const categoryCount = 1024;
const pairCount = (categoryCount * (categoryCount - 1)) / 2;

/**
 * Draws levels for pods: two categories each, which no other pod that has a record has. Two draws in a row differ, so a
 * record that is still being written needs no place of its own.
 */
export function createSelinuxLevels(
  sandboxes: Pick<RecordStore<Sandbox>, "all">,
  first = randomInt(pairCount),
): () => string {
  let next = first;
  return () => {
    const taken = new Set(sandboxes.all().map(({ selinuxLevel }) => selinuxLevel));
    for (let tries = 0; tries < pairCount; tries++) {
      const level = levelOfPair(next++ % pairCount);
      if (!taken.has(level)) return level;
    }
    throw new CriError(Code.ResourceExhausted, "every SELinux level is some pod's");
  };
}

/** The pairs of categories in a row: 0,1 0,2 1,2 0,3 … */
function levelOfPair(index: number): string {
  const higher = Math.floor((1 + Math.sqrt(1 + 8 * index)) / 2);
  return `s0:c${index - (higher * (higher - 1)) / 2},c${higher}`;
}

/** @throws {CriError} `InvalidArgument` for options that are malformed. */
export function selinuxLabelsOf(
  { facts }: Pick<Host, "facts">,
  { config, selinuxLevel }: Pick<Sandbox, "config" | "selinuxLevel">,
  context: cri.LinuxContainerSecurityContext | null = null,
): SelinuxLabels | undefined {
  return buildSelinuxLabels(config, context, { defaults: facts.selinux, level: selinuxLevel });
}

/** What the system itself lies in: labelled for a container, the node would be lost. */
const systemPaths: ReadonlySet<string> = new Set([
  "/var/lib",
  "/var/log",
  "/var/run",
  "/usr/lib",
  "/usr/bin",
  "/usr/share",
]);
const systemTrees: readonly string[] = ["/boot", "/dev", "/proc", "/sys"];

/**
 * The sources of a container's mounts that are to be labelled as its own files.
 *
 * @throws {CriError} `InvalidArgument` for one that the system itself needs with its own label.
 */
export function sourcesToRelabel(
  mounts: readonly ResolvedMount[],
  labels: SelinuxLabels | undefined,
): readonly string[] {
  if (!labels || isUnconfinedBySelinux(labels)) return [];
  const sources = mounts.filter(({ mount }) => mount.selinuxRelabel).map(({ sourcePath }) => sourcePath);
  const wrong = sources.find(
    (path) =>
      path.lastIndexOf("/") === 0 ||
      systemPaths.has(path) ||
      path.startsWith("/etc/") ||
      systemTrees.some((tree) => path.startsWith(`${tree}/`)),
  );
  if (wrong === undefined) return sources;
  throw new CriError(Code.InvalidArgument, `host path "${wrong}" is the system's own: relabeling it is not allowed`);
}

/** Labels what lies on the host and a container is to write; nothing without SELinux. Idempotent. */
export async function labelFiles(
  signal: AbortSignal,
  labels: SelinuxLabels | undefined,
  paths: readonly string[],
): Promise<void> {
  if (labels) await relabel(paths, labels.file, { signal });
}
