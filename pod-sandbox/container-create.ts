import { randomBytes } from "node:crypto";
import { lstat, mkdir, rm } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import { mkdirInRoot, removeTree } from "../native/index.ts";
import { stopSignalNumber, validateContainerConfig } from "../oci/index.ts";
import { resolveDevices, resolveMounts } from "./container-sources.ts";
import { buildSpec, lookUpUser } from "./container-spec.ts";
import type { Creation } from "./container-spec.ts";
import { nowNs } from "./container-start.ts";
import { advanceContainer, containerName } from "./container.ts";
import type { Host } from "./host.ts";
import { containerPathsOf } from "./layout.ts";
import { runtimeOf } from "./runtimes.ts";
import { requireReadySandbox } from "./sandbox-list.ts";
import { isPrivilegedSandbox } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { settleTogether, teardownDeadlineMs } from "./undo.ts";

/**
 * Creates a container in a ready pod sandbox; its process waits to be started. The work outlives a caller that gives
 * up, and a retry with the same metadata gets its result.
 *
 * @throws {CriError} `NotFound` for an unknown sandbox or image, `FailedPrecondition` when the sandbox is not ready,
 * `InvalidArgument` for a bad config or one that asks for what is not built.
 */
export async function createContainer(
  call: Call,
  request: cri.CreateContainerRequest,
  host: Host,
): Promise<Init<cri.CreateContainerResponse>> {
  const sandbox = requireReadySandbox(host, request.podSandboxId);
  const { config, metadata, imageName } = validate(request.config, sandbox);
  const image = host.images.resolveImage(imageName);
  if (!image) throw new CriError(Code.NotFound, `image "${imageName}" not found`);
  const name = containerName(metadata, sandbox.id);
  const existing = host.containers.byName(name);
  if (existing && existing.state !== "creating") return { containerId: existing.id };

  const containerId = await host.creations.join(call, { name, group: sandbox.id }, async (signal) => {
    const id = randomBytes(32).toString("hex");
    const container = {
      state: "creating",
      id,
      sandboxId: sandbox.id,
      name,
      config,
      runtime: sandbox.runtime,
      createdAtNs: nowNs(),
      imageId: image.id,
      imageRef: image.repoDigests[0] ?? image.id,
      logPath: logPathOf(config, sandbox.config),
      resources: config.linux?.resources ?? host.noResources,
      stopSignal: stopSignalNumber(config.stopSignal, image.config.stopSignal),
    } as const;
    const paths = containerPathsOf(host.layout, id);
    const runtime = runtimeOf(host, sandbox.runtime);
    await create({ ...call, signal }, { container, sandbox, image, runtime, paths }, host);
    return id;
  });
  return { containerId };
}

function validate(
  config: cri.ContainerConfig | null,
  sandbox: SandboxIn<"ready">,
): { readonly config: cri.ContainerConfig; readonly metadata: cri.ContainerMetadata; readonly imageName: string } {
  if (!config) throw new CriError(Code.InvalidArgument, "container config is missing");
  const { metadata, image } = config;
  if (!metadata || metadata.name === "") throw new CriError(Code.InvalidArgument, "container metadata.name is missing");
  if (!image || image.image === "") throw new CriError(Code.InvalidArgument, "container image is missing");
  validateContainerConfig(config, sandbox.config);
  if (config.linux?.securityContext?.privileged && !isPrivilegedSandbox(sandbox.config)) {
    throw new CriError(Code.InvalidArgument, `no privileged container allowed in pod sandbox "${sandbox.id}"`);
  }
  return { config, metadata, imageName: image.image };
}

/** @throws {CriError} `InvalidArgument` for a path that would leave the pod's log directory. */
function logPathOf(config: cri.ContainerConfig, sandbox: cri.PodSandboxConfig): string {
  if (config.logPath === "" || sandbox.logDirectory === "") return "";
  if (isAbsolute(config.logPath) || config.logPath.split("/").includes("..") || config.logPath.includes("\0")) {
    throw new CriError(Code.InvalidArgument, `log_path "${config.logPath}" leaves the log directory`);
  }
  return join(sandbox.logDirectory, config.logPath);
}

async function create(call: Call, creation: Creation, host: Host): Promise<void> {
  const { container } = creation;
  await host.containers.save(container); // a crash from here on is found at restart
  try {
    await bringUp(call, creation, host);
  } catch (thrown) {
    const isUndone = !(thrown instanceof SuppressedError); // else the record stays, for RemovePodSandbox to finish
    if (isUndone) await host.containers.remove(container.id);
    throw thrown;
  }
}

async function bringUp(call: Call, creation: Creation, host: Host): Promise<void> {
  const { container, paths, image, runtime } = creation;
  const { id, config } = container;
  await using undo = new AsyncDisposableStack(); // unwinds newest first on any throw

  undo.defer(() => removeTree(paths.bundle));
  await mkdir(paths.bundle, { recursive: true, mode: 0o700 });

  undo.defer(() => host.images.removeRootfs(id, paths.rootfs, AbortSignal.timeout(teardownDeadlineMs)));
  const [mounts, devices] = await settleTogether([
    resolveMounts(call.signal, config.mounts),
    resolveDevices(call.signal, config.devices),
    host.images.createRootfs(id, image.id, paths.rootfs),
    prepareLog(container.logPath),
  ]);

  const { user, accounts } = await lookUpUser(creation);
  const spec = await buildSpec(creation, { mounts, devices, user, accounts }, host);
  await mkdirInRoot(paths.rootfs, spec.process.cwd, { mode: 0o755 });

  undo.defer(() => runtime.delete(AbortSignal.timeout(teardownDeadlineMs), id, paths.bundle));
  const { logPath } = container;
  const { tty, stdin, stdinOnce } = config;
  const processes = await runtime.create(call.signal, {
    id,
    bundle: paths.bundle,
    spec,
    logPath,
    tty,
    stdin,
    stdinOnce,
  });

  const supplementalGroups = user.additionalGids;
  const created = advanceContainer(container, {
    ...container,
    ...processes,
    user: { uid: user.uid, gid: user.gid, supplementalGroups },
    state: "created",
  });
  await host.containers.save(created);
  undo.move(); // the container is there; nothing to unwind
  host.exits.watch(created);
  call.log.info({ containerId: id, podSandboxId: container.sandboxId }, "container created");
}

/** kubelet owns the log directory; a link put in the log file's place would make the monitor write where it points. */
async function prepareLog(logPath: string): Promise<void> {
  if (logPath === "") return;
  await mkdir(dirname(logPath), { recursive: true, mode: 0o755 });
  const found = await lstat(logPath).catch(() => undefined);
  if (found && !found.isFile()) await rm(logPath);
}
