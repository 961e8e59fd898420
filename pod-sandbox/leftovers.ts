import { readdir } from "node:fs/promises";
import { releaseContainer, removeContainerRecord } from "./container-remove.ts";
import type { Host } from "./host.ts";
import { exists, sandboxPathsOf } from "./layout.ts";
import { podInterface } from "./network.ts";
import { removeSandboxFiles } from "./sandbox-files.ts";
import { unpinSandboxNamespaces } from "./sandbox-namespaces.ts";
import { releaseSandbox } from "./sandbox-stop.ts";
import { advanceSandbox, sandboxBase } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { teardownDeadlineMs } from "./undo.ts";

/** What does not die of SIGKILL for so long will not. */
const strayPatienceMs = 5_000;

/**
 * Undoes the creates that the daemon before died in, and takes down what no record tells of: that of a record put aside
 * as unreadable, too. What cannot be cleared now is tried again at the next start.
 */
export async function clearLeftovers(host: Host): Promise<void> {
  const containers = host.containers.all().filter(({ state }) => state === "creating");
  const sandboxes = host.sandboxes.all().filter((sandbox) => sandbox.state === "creating");
  const orphans = await findOrphans(host);
  await endStrayPlugins(orphans.sandboxes, host);
  await Promise.all([
    ...containers.map(({ id }) => guarded(host, id, () => removeContainerRecord(id, host))),
    ...sandboxes.map((sandbox) => guarded(host, sandbox.id, () => undoCreation(sandbox, host))),
    ...orphans.containers.map((id) => guarded(host, id, () => removeOrphanContainer(id, host))),
    ...orphans.sandboxes.map((id) => guarded(host, id, () => removeOrphanSandbox(id, host))),
  ]);
}

/** A plugin that would go on with its ADD while that is undone. Pods that are there whole have none at work. */
async function endStrayPlugins(orphans: readonly string[], host: Host): Promise<void> {
  const halfWay = host.sandboxes.all().filter(({ state }) => state === "creating" || state === "not-ready");
  const ids = [...halfWay.map(({ id }) => id), ...orphans];
  if (ids.length === 0) return;
  try {
    const count = await host.network.endStrayPlugins(ids, AbortSignal.timeout(strayPatienceMs));
    if (count > 0) host.log.warn({ count }, "ended network plugins that the daemon before had left at work");
  } catch (thrown) {
    host.log.error({ err: String(thrown) }, "network plugins of the daemon before do not end");
  }
}

/** One object that cannot be taken up or cleared must not keep the others, and so the node, from coming up. */
export async function guarded(host: Host, id: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (thrown) {
    host.log.error({ id, err: String(thrown) }, "could not take up an object; the next stop or remove tries again");
  }
}

async function undoCreation(sandbox: SandboxIn<"creating">, host: Host): Promise<void> {
  try {
    await releaseSandbox(sandbox, host);
    await removeSandboxFiles(sandboxPathsOf(host.layout, sandbox.id));
    await host.sandboxes.remove(sandbox.id);
  } catch (thrown) {
    await host.sandboxes.save(advanceSandbox(sandbox, { ...sandboxBase(sandbox), state: "not-ready", ips: [] }));
    throw thrown;
  }
}

interface Orphans {
  readonly containers: readonly string[];
  readonly sandboxes: readonly string[];
}

/** A record is written before anything of its object is made, so what has none is nobody's. */
async function findOrphans({ layout, images, containers, sandboxes }: Host): Promise<Orphans> {
  const [bundles, pods] = await Promise.all([readdir(layout.containers), readdir(layout.sandboxes)]);
  const isId = (name: string): boolean => /^[0-9a-f]{64}$/.test(name);
  return {
    containers: [...new Set([...bundles, ...images.rootfsIds()])].filter((id) => isId(id) && !containers.get(id)),
    sandboxes: pods.filter((id) => isId(id) && !sandboxes.get(id)),
  };
}

async function removeOrphanContainer(id: string, host: Host): Promise<void> {
  await releaseContainer(id, [...host.runtimes.values()], host);
  host.log.warn({ containerId: id }, "took down a container without a record");
}

/** Its network goes while there is a namespace yet: without one, plugins leave their firewall rules. */
async function removeOrphanSandbox(id: string, host: Host): Promise<void> {
  const paths = sandboxPathsOf(host.layout, id);
  if (await exists(paths.netns)) {
    const pod = { name: "", namespace: "", uid: "" };
    const attachment = { containerId: id, netnsPath: paths.netns, ifName: podInterface, pod, portMappings: [] };
    await host.network.del(attachment, AbortSignal.timeout(teardownDeadlineMs));
  }
  for (const runtime of host.runtimes.values()) {
    await runtime.delete(AbortSignal.timeout(teardownDeadlineMs), id, paths.pauseBundle);
  }
  await unpinSandboxNamespaces(paths);
  await removeSandboxFiles(paths);
  host.log.warn({ podSandboxId: id }, "took down a pod sandbox without a record");
}
