import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { isAlive, unmount, removeTree } from "../native/index.ts";
import { releaseContainer } from "./container-remove.ts";
import { advanceContainer, isLive } from "./container.ts";
import type { Container, LiveContainer } from "./container.ts";
import type { Host } from "./host.ts";
import { exists, sandboxPathsOf } from "./layout.ts";
import { usesHostNetwork } from "./network.ts";
import { runtimeOf } from "./runtimes.ts";
import { removeSandboxFiles } from "./sandbox-files.ts";
import { releaseSandbox } from "./sandbox-stop.ts";
import { advanceSandbox, sandboxBase } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";
import { teardownDeadlineMs } from "./undo.ts";

/**
 * Makes the records true again after the daemon was away: what still runs is watched again, what ended meanwhile gets
 * its exit, half-made things are undone, and pods whose namespaces are gone (a reboot) are not ready.
 */
export async function recover(host: Host): Promise<void> {
  await Promise.all(
    host.containers.all().map((container) => guarded(host, container.id, () => recoverContainer(container, host))),
  );
  await Promise.all(
    host.sandboxes.all().map((sandbox) => guarded(host, sandbox.id, () => recoverSandbox(sandbox, host))),
  );
  await removeOrphans(host);
  const counts = { podSandboxes: host.sandboxes.all().length, containers: host.containers.all().length };
  if (counts.podSandboxes + counts.containers > 0) host.log.info(counts, "took up the objects of the daemon before");
}

/** One object that cannot be taken up must not keep the others, and so the node, from coming up. */
async function guarded(host: Host, id: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (thrown) {
    host.log.error({ id, err: String(thrown) }, "could not take up an object; the next stop or remove tries again");
  }
}

async function recoverContainer(container: Container, host: Host): Promise<void> {
  if (container.state === "creating") {
    await releaseContainer(container.id, container.runtime, host);
    await host.containers.remove(container.id);
    return;
  }
  if (!isLive(container)) return;
  const live = await startedMeanwhile(container, host);
  host.exits.watch(live);
  if (!isAlive(live.init)) await host.exits.ended(live.id); // its exit is on disk: no answer before it is known
}

/** A daemon that died between the runtime's start and its own record left `created` behind. */
async function startedMeanwhile(container: LiveContainer, host: Host): Promise<LiveContainer> {
  if (container.state !== "created") return container;
  const isStarted = await runtimeOf(host, container.runtime).isStarted(container.id);
  if (!isStarted) return container;
  const running = advanceContainer(container, {
    ...container,
    state: "running",
    startedAtNs: BigInt(Date.now()) * 1_000_000n,
  });
  await host.containers.save(running);
  return running.state === "running" ? running : container;
}

async function recoverSandbox(sandbox: Sandbox, host: Host): Promise<void> {
  if (sandbox.state === "creating") return await undoCreation(sandbox, host);
  if (sandbox.state !== "ready") return;
  if (await isWhole(sandbox, host)) return host.exits.watchPause(sandbox);
  await host.sandboxes.save(advanceSandbox(sandbox, { ...sandboxBase(sandbox), state: "not-ready", ips: sandbox.ips }));
  host.log.warn({ podSandboxId: sandbox.id }, "pod sandbox lost its namespaces or pause process; it is not ready");
}

async function isWhole(sandbox: SandboxIn<"ready">, host: Host): Promise<boolean> {
  if (sandbox.pause && !isAlive(sandbox.pause)) return false;
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  return await exists(usesHostNetwork(sandbox.config) ? paths.directory : paths.netns);
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

/** Directories without a record: what a remove left when the daemon died in it. */
async function removeOrphans(host: Host): Promise<void> {
  const kinds = [
    { directory: host.layout.containers, records: host.containers, mounts: ["rootfs"] },
    { directory: host.layout.sandboxes, records: host.sandboxes, mounts: ["shm", "ns/net", "ns/ipc", "ns/uts"] },
  ] as const;
  for (const { directory, records, mounts } of kinds) {
    for (const id of await readdir(directory)) {
      if (records.get(id)) continue;
      await guarded(host, id, async () => {
        const signal = AbortSignal.timeout(teardownDeadlineMs);
        for (const mount of mounts) await unmount(join(directory, id, mount), { signal });
        await removeTree(join(directory, id));
      });
    }
  }
}
