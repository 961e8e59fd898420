import type { Call, cri, Init } from "../cri-api/index.ts";
import { unmount, unpinNamespace } from "../native/index.ts";
import { killContainer } from "./container-stop.ts";
import { isLive } from "./container.ts";
import type { Container } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf, exists, sandboxPathsOf } from "./layout.ts";
import { attachmentOf, usesHostNetwork } from "./network.ts";
import { removePauseProcess } from "./pause.ts";
import { runtimeOf } from "./runtimes.ts";
import { advanceSandbox, sandboxBase, sandboxIps } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";
import { settleTogether, teardownDeadlineMs } from "./undo.ts";

/**
 * Kills what runs in the pod and releases its network, namespaces and mounts. Idempotent; an unknown id succeeds.
 * A step that fails leaves the sandbox not ready, the error goes to the caller, and the next call does what is left.
 */
export async function stopPodSandbox(
  call: Call,
  request: cri.StopPodSandboxRequest,
  host: Host,
): Promise<Init<cri.StopPodSandboxResponse>> {
  const sandbox = host.sandboxes.find(request.podSandboxId);
  if (sandbox) await host.operations.run(sandbox.id, call.signal, () => takeDown(sandbox.id, host));
  return {};
}

/** Brings a sandbox to `stopped`; the caller holds its operations lock. */
export async function takeDown(id: string, host: Host): Promise<void> {
  const sandbox = await host.sandboxes.update(id, markNotReady);
  if (sandbox?.state !== "not-ready") return; // gone, or stopped before
  await host.creations.abandon(id, `pod sandbox "${id}" is being stopped`);

  const own = host.containers.all().filter((container) => container.sandboxId === id);
  await settleTogether([
    ...own.filter(isLive).map((container) => killContainer(container.id, host)),
    ...own.filter(({ state }) => state === "creating").map((container) => endHalfMade(container, host)),
  ]);
  await releaseSandbox(sandbox, host);
  await host.sandboxes.update(id, (current) =>
    current.state === "not-ready" ? advanceSandbox(current, { ...current, state: "stopped" }) : current,
  );
  host.log.info({ podSandboxId: id }, "pod sandbox stopped");
}

/** Ends what a create has left whose undo failed; its files go with the pod, as those of all containers. */
async function endHalfMade({ id, runtime }: Container, host: Host): Promise<void> {
  const { bundle } = containerPathsOf(host.layout, id);
  await host.operations.run(id, undefined, async () => {
    await runtimeOf(host, runtime).delete(AbortSignal.timeout(teardownDeadlineMs), id, bundle);
  });
}

/** Gives back what a sandbox holds outside its record: each step idempotent, found by the id alone. */
export async function releaseSandbox(sandbox: Sandbox, host: Host): Promise<void> {
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  // What takes long is the network's end, and only the network namespace has to wait for it.
  await settleTogether([
    detach(sandbox, host).then(() => unpinNamespace(paths.netns)),
    removePauseProcess(sandbox, host),
    ...[paths.ipcns, paths.utsns, paths.userns].map((path) => unpinNamespace(path)),
    unmount(paths.shm, { signal: AbortSignal.timeout(teardownDeadlineMs) }),
  ]);
}

async function detach(sandbox: Sandbox, host: Host): Promise<void> {
  if (usesHostNetwork(sandbox.config)) return;
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  const netnsPath = (await exists(paths.netns)) ? paths.netns : "";
  const attachment = attachmentOf(sandbox.id, sandbox.config, netnsPath);
  await host.network.del(attachment, AbortSignal.timeout(teardownDeadlineMs));
}

function markNotReady(sandbox: Sandbox): Sandbox {
  if (sandbox.state !== "ready" && sandbox.state !== "creating") return sandbox;
  const notReady: SandboxIn<"not-ready"> = { ...sandboxBase(sandbox), state: "not-ready", ips: sandboxIps(sandbox) };
  return sandbox.state === "ready" ? advanceSandbox(sandbox, notReady) : advanceSandbox(sandbox, notReady);
}
