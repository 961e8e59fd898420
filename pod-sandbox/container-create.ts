import { randomBytes } from "node:crypto";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import type { RootfsOwner } from "../image-service/index.ts";
import { makeFolders, removeTree } from "../native/index.ts";
import { stopSignalNumber, validateContainerConfig } from "../oci/index.ts";
import { isHeld } from "./bundle.ts";
import { resolveCdiDevices } from "./cdi-devices.ts";
import { createdAfter } from "./clock.ts";
import { logPathOf } from "./container-log-path.ts";
import { resolveHostPaths } from "./container-sources.ts";
import { buildSpec, lookUpUser } from "./container-spec.ts";
import type { Creation } from "./container-spec.ts";
import { removeContainerRecord } from "./container-remove.ts";
import { advanceContainer, containerName, imageNameOf } from "./container.ts";
import type { Container } from "./container.ts";
import { makeFolder, provideDeclaredVolumes } from "./declared-volumes.ts";
import type { Host } from "./host.ts";
import { containerPathsOf, sandboxPathsOf } from "./layout.ts";
import { guarded } from "./leftovers.ts";
import { mountImageVolumes, unmountImageVolumes } from "./image-volumes.ts";
import { openPidNamespace } from "./pid-namespace.ts";
import { podContainers } from "./pod-containers.ts";
import { runtimeOf } from "./runtimes.ts";
import { requireReadySandbox } from "./sandbox-list.ts";
import { isPrivilegedSandbox } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { labelFiles, selinuxLabelsOf, sourcesToRelabel } from "./selinux.ts";
import { noteUndo, settleTogether, teardownDeadlineMs, tellFailedUndo, undoneByUs } from "./undo.ts";
import { hostUserOf, letPodRootThrough, podRootOf } from "./user-namespace.ts";

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
  const name = containerName(metadata, sandbox.id);
  const existing = host.containers.byName(name);
  if (existing && existing.state !== "creating") return { containerId: existing.id };

  const containerId = await host.creations.join(call, { name, group: sandbox.id }, async (signal) => {
    const image = host.images.resolveImage(imageName);
    if (!image) throw new CriError(Code.NotFound, `image "${imageName}" not found`);
    if (image.type === "artifact") {
      throw new CriError(Code.InvalidArgument, `image "${imageName}" is an artifact, which can only be a volume`);
    }
    const namespace = sandbox.config.metadata?.namespace ?? "";
    const userSpecifiedImage = config.image?.userSpecifiedImage || imageName;
    await host.images.requireAllowed({ image, userSpecifiedImage, namespace }, signal);
    const id = randomBytes(32).toString("hex");
    const elders = podContainers(sandbox, host).filter((other) => other.config.metadata?.name === metadata.name);
    await clearFailedCreates(
      elders.filter((other) => other.name === name),
      host,
    );
    const container = {
      state: "creating",
      id,
      sandboxId: sandbox.id,
      name,
      config,
      runtime: sandbox.runtime,
      createdAtNs: createdAfter(elders),
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

/** Tries again what the undo of the same create before could not; it may fail without harm to this one. */
async function clearFailedCreates(namesakes: readonly Container[], host: Host): Promise<void> {
  const failed = namesakes.filter(({ state }) => state === "creating");
  await Promise.all(failed.map(({ id }) => guarded(host, id, () => removeContainerRecord(id, host))));
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

async function create(call: Call, creation: Creation, host: Host): Promise<void> {
  const { container } = creation;
  await host.containers.save(container); // a crash from here on is found at restart
  try {
    await bringUp(call, creation, host);
  } catch (thrown) {
    // the record of an undo that failed stays: a retry, StopPodSandbox and RemovePodSandbox go on with it
    if (thrown instanceof SuppressedError) tellFailedUndo(call.log, container.id, thrown);
    else await noteUndo(call.log, container.id, () => host.containers.remove(container.id));
    throw thrown;
  }
}

async function bringUp(call: Call, creation: Creation, host: Host): Promise<void> {
  const { container, paths, image, runtime } = creation;
  const { id, config } = container;
  await using pidNamespace = await openPidNamespace(config, creation.sandbox, host);
  await using undo = new AsyncDisposableStack(); // unwinds newest first on any throw

  undo.defer(async () => {
    if (!(await isHeld(paths.bundle))) await removeTree(paths.bundle);
  });
  const folders = needsVolumes(creation, host) ? [paths.bundle, paths.volumes] : [paths.bundle];
  await makeFolders(folders.map((path) => ({ path, mode: 0o700 })));
  await letPodRootThrough(creation.sandbox.config, folders);

  const selinux = selinuxLabelsOf(host, creation.sandbox, config.linux?.securityContext);
  const view = { owner: rootfsOwnerOf(creation.sandbox, host), label: selinux?.file };
  undo.defer(() => host.images.removeRootfs(id, paths.rootfs, AbortSignal.timeout(teardownDeadlineMs)));
  const { logPath } = container;
  const hostPaths = { mounts: config.mounts.filter((mount) => !mount.image), devices: config.devices, logPath };
  const [ofHost, cdi] = await settleTogether([
    resolveHostPaths(call.signal, hostPaths),
    resolveCdiDevices(call.signal, creation, host.cdi),
    host.images.createRootfs(id, image.id, paths.rootfs, view),
  ]);
  undo.defer(() => unmountImageVolumes(paths));
  const declared = await provideDeclaredVolumes(call.signal, creation, view, host);
  const mounts = [...declared, ...ofHost.mounts, ...(await mountImageVolumes(call.signal, creation, view, host))];

  const { user: given, accounts } = await lookUpUser(creation);
  const user = { ...given, additionalGids: [...new Set([...given.additionalGids, ...(cdi?.additionalGids ?? [])])] };
  const { pid } = pidNamespace;
  const spec = await buildSpec(creation, { mounts, devices: ofHost.devices, cdi, user, accounts, pid, selinux }, host);
  await labelFiles(call.signal, selinux, [...Object.values(accounts), ...sourcesToRelabel(mounts, selinux)]);
  await makeFolder(creation, "working directory", spec.process.cwd);

  undo.defer(() => runtime.delete(AbortSignal.timeout(teardownDeadlineMs), id, paths.bundle));
  const { tty, stdin, stdinOnce } = config;
  const hostUser = hostUserOf(creation.sandbox.config, user);
  const process = {
    id,
    bundle: paths.bundle,
    spec,
    logPath,
    keepsLog: ofHost.hasLog,
    tty,
    stdin,
    stdinOnce,
    ...hostUser,
    imageName: imageNameOf(container),
  };
  const processes = await undoneByUs(runtime.create(call.signal, process));
  await unmountImageVolumes(paths); // the container's own mount namespace has them now

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

function needsVolumes({ container, image }: Creation, host: Host): boolean {
  const declares = host.config.imageVolumes === "bind" && image.config.volumes.length > 0;
  return declares || container.config.mounts.some(({ image: volume }) => volume);
}

function rootfsOwnerOf(sandbox: SandboxIn<"ready">, host: Host): RootfsOwner | undefined {
  const root = podRootOf(sandbox.config);
  return root && { ...root, userNamespace: sandboxPathsOf(host.layout, sandbox.id).userns };
}
