import { randomBytes } from "node:crypto";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import { makeFolders } from "../native/index.ts";
import type { ProcessIdentity } from "../native/index.ts";
import { createdAfter } from "./clock.ts";
import { chooseRuntime } from "./host.ts";
import type { Host } from "./host.ts";
import { sandboxPathsOf } from "./layout.ts";
import type { SandboxPaths } from "./layout.ts";
import { attachmentOf, usesHostNetwork } from "./network.ts";
import { startPauseProcess } from "./pause.ts";
import { isSamePod } from "./pod-containers.ts";
import { removeSandboxFiles, writeSandboxFiles } from "./sandbox-files.ts";
import { pinSandboxNamespaces, unpinSandboxNamespaces } from "./sandbox-namespaces.ts";
import { releaseSandbox } from "./sandbox-stop.ts";
import { advanceSandbox, namespaceOptionsOf, sandboxBase, sandboxName } from "./sandbox.ts";
import type { Sandbox, SandboxIn } from "./sandbox.ts";
import { selinuxLabelsOf } from "./selinux.ts";
import { validateSandboxConfig } from "./sandbox-validate.ts";
import { noteUndo, settleTogether, tellFailedUndo, undoneByUs } from "./undo.ts";
import { requireUserNamespaces } from "./user-namespace.ts";

/**
 * Creates and starts a pod sandbox; it is READY when this returns. The work outlives a caller that gives up, and a
 * retry with the same metadata gets its result.
 *
 * @throws {CriError} `InvalidArgument` for a bad config or an unknown runtime handler, `FailedPrecondition` when the
 * network is not ready, `AlreadyExists` when a sandbox of that name exists but is not ready.
 */
export async function runPodSandbox(
  call: Call,
  request: cri.RunPodSandboxRequest,
  host: Host,
): Promise<Init<cri.RunPodSandboxResponse>> {
  const config = validateSandboxConfig(host, request.config);
  const runtime = chooseRuntime(host, request.runtimeHandler);
  requireUserNamespaces(runtime, config);
  const name = sandboxName(config.metadata);
  const existing = host.sandboxes.byName(name);
  if (existing?.state === "ready") return { podSandboxId: existing.id };
  if (existing && existing.state !== "creating") {
    throw new CriError(Code.AlreadyExists, `pod sandbox "${existing.id}" of that name exists and is not ready`);
  }
  selinuxLabelsOf(host, { config }); // refuses malformed options before anything is made
  const podSandboxId = await host.creations.join(call, { name, group: "pod sandboxes" }, async (signal) => {
    requireNetwork(host, config);
    const id = randomBytes(32).toString("hex");
    const elders = host.sandboxes.all().filter((other) => isSamePod(other, { id, config }));
    const sandbox = {
      state: "creating",
      id,
      name,
      config,
      runtimeHandler: request.runtimeHandler,
      runtime: runtime.handler,
      createdAtNs: createdAfter(elders),
      ...selinuxLevelFor(config, host),
    } as const;
    await createSandbox({ ...call, signal }, sandbox, host);
    return id;
  });
  return { podSandboxId };
}

function selinuxLevelFor({ linux }: cri.PodSandboxConfig, host: Host): Pick<Sandbox, "selinuxLevel"> {
  if (!host.facts.selinux) return {};
  return { selinuxLevel: linux?.securityContext?.selinuxOptions?.level || host.drawSelinuxLevel() };
}

function requireNetwork(host: Host, config: cri.PodSandboxConfig): void {
  if (usesHostNetwork(config)) return;
  const status = host.network.status();
  if (!status.ready) throw new CriError(Code.FailedPrecondition, `network is not ready: ${status.message}`);
}

async function createSandbox(call: Call, sandbox: SandboxIn<"creating">, host: Host): Promise<void> {
  await host.sandboxes.save(sandbox); // a crash from here on is found at restart
  try {
    await bringUp(call, sandbox, host);
  } catch (thrown) {
    const isUndone = !(thrown instanceof SuppressedError); // every undo step ran; did one fail?
    if (!isUndone) tellFailedUndo(call.log, sandbox.id, thrown);
    const notReady = advanceSandbox(sandbox, { ...sandboxBase(sandbox), state: "not-ready", ips: [] });
    await noteUndo(call.log, sandbox.id, () =>
      isUndone ? host.sandboxes.remove(sandbox.id) : host.sandboxes.save(notReady),
    );
    throw thrown;
  }
}

async function bringUp(call: Call, sandbox: SandboxIn<"creating">, host: Host): Promise<void> {
  const paths = sandboxPathsOf(host.layout, sandbox.id);
  await makeNamespaces(sandbox, paths);
  await using undo = new AsyncDisposableStack();

  undo.defer(async () => {
    await releaseSandbox(sandbox, host); // a failed ADD still needs its DEL
    await removeSandboxFiles(paths); // the next try finds by them what could not be released
  });
  const [ips, , pause] = await settleTogether([
    attachNetwork(call, sandbox, paths, host),
    writeSandboxFiles(call, sandbox, paths, host),
    startPause(call, sandbox, paths, host),
  ]);

  const ready = { ...sandboxBase(sandbox), state: "ready", ips, ...(pause ? { pause } : {}) } as const;
  await host.sandboxes.save(advanceSandbox(sandbox, ready));
  undo.move(); // the pod is up; nothing to unwind
  host.exits.watchPause(ready);
  call.log.info({ podSandboxId: sandbox.id, ips }, "pod sandbox ready");
}

async function makeNamespaces(sandbox: SandboxIn<"creating">, paths: SandboxPaths): Promise<void> {
  await using undo = new AsyncDisposableStack(); // unwinds newest first on any throw

  undo.defer(() => removeSandboxFiles(paths));
  await makeFolders([paths.directory, paths.namespaces].map((path) => ({ path, mode: 0o700 })));

  undo.defer(() => unpinSandboxNamespaces(paths));
  await pinSandboxNamespaces(sandbox, paths);
  undo.move();
}

async function attachNetwork(
  call: Call,
  sandbox: SandboxIn<"creating">,
  paths: SandboxPaths,
  host: Host,
): Promise<readonly string[]> {
  if (usesHostNetwork(sandbox.config)) return [];
  const result = await undoneByUs(host.network.add(call, attachmentOf(sandbox.id, sandbox.config, paths.netns)));
  return result.ips;
}

async function startPause(
  call: Call,
  sandbox: SandboxIn<"creating">,
  paths: SandboxPaths,
  host: Host,
): Promise<ProcessIdentity | undefined> {
  if (namespaceOptionsOf(sandbox.config).pid !== "POD") return undefined;
  return await startPauseProcess(call, sandbox, paths, host);
}
