import { randomBytes } from "node:crypto";
import { lstat, mkdir, rm } from "node:fs/promises";
import { dirname, isAbsolute, join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { Call, cri, Init } from "../cri-api/index.ts";
import type { StoredImage } from "../image-service/index.ts";
import { mkdirInRoot, readFileInRoot, readMountTable, removeTree } from "../native/index.ts";
import { buildContainerSpec, resolveUser, stopSignalNumber, validateContainerConfig } from "../oci/index.ts";
import type { ImageDefaults, ResolvedUser, Runtime, Spec } from "../oci/index.ts";
import { resolveDevices, resolveMounts } from "./container-sources.ts";
import { nowNs } from "./container-start.ts";
import { advanceContainer, containerName } from "./container.ts";
import type { ContainerIn } from "./container.ts";
import { cgroupsPathOf, runtimeOf } from "./host.ts";
import type { Host } from "./host.ts";
import { containerPathsOf, sandboxPathsOf } from "./layout.ts";
import type { ContainerPaths } from "./layout.ts";
import { requireReadySandbox } from "./sandbox-list.ts";
import { hostnameOf, settleTogether } from "./sandbox-run.ts";
import { isPrivilegedSandbox, namespaceOptionsOf } from "./sandbox.ts";
import type { SandboxIn } from "./sandbox.ts";
import { teardownDeadlineMs } from "./sandbox-stop.ts";
import { usesHostNetwork } from "./network.ts";

/** Password files larger than this are no password files (CVE-2025-4437). */
const maxPasswdBytes = 1024 * 1024;

/** One CreateContainer at work: what was asked, and what it was asked of. */
interface Creation {
  readonly container: ContainerIn<"creating">;
  readonly sandbox: SandboxIn<"ready">;
  readonly image: StoredImage;
  readonly runtime: Runtime;
  readonly paths: ContainerPaths;
}

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
      resources: config.linux?.resources ?? host.emptyResources,
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

  const user = await lookUpUser(creation);
  const spec = await buildSpec(creation, { mounts, devices, user }, host);
  await mkdirInRoot(paths.rootfs, spec.process.cwd, { mode: 0o755 });

  undo.defer(() => runtime.delete(AbortSignal.timeout(teardownDeadlineMs), id, paths.bundle));
  const { logPath } = container;
  const { tty, stdin, stdinOnce } = config;
  const processes = await runtime.create(call.signal, { id, bundle: paths.bundle, spec, logPath, tty, stdin, stdinOnce });

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

async function lookUpUser({ container, image, paths }: Creation): Promise<ResolvedUser> {
  const [passwd, group] = await Promise.all([
    readFileInRoot(paths.rootfs, "/etc/passwd", { maxBytes: maxPasswdBytes }),
    readFileInRoot(paths.rootfs, "/etc/group", { maxBytes: maxPasswdBytes }),
  ]);
  return resolveUser({ passwd, group }, container.config.linux?.securityContext ?? null, image.config.user);
}

interface Sources {
  readonly mounts: Awaited<ReturnType<typeof resolveMounts>>;
  readonly devices: Awaited<ReturnType<typeof resolveDevices>>;
  readonly user: ResolvedUser;
}

async function buildSpec(creation: Creation, sources: Sources, host: Host): Promise<Spec> {
  const { container, sandbox, image, paths } = creation;
  const pod = sandboxPathsOf(host.layout, sandbox.id);
  const sharesHostIpc = namespaceOptionsOf(sandbox.config).ipc === "NODE";
  const isHostNetwork = usesHostNetwork(sandbox.config);
  return buildContainerSpec({
    id: container.id,
    config: container.config,
    sandbox: sandbox.config,
    image: imageDefaultsOf(image),
    rootfsPath: paths.rootfs,
    ...sources,
    mountTable: await readMountTable(),
    podFiles: {
      resolvConf: pod.resolvConf,
      hostname: pod.hostname,
      hosts: pod.hosts,
      shm: sharesHostIpc ? "/dev/shm" : pod.shm,
    },
    namespaces: {
      ...(isHostNetwork ? {} : { network: pod.netns, uts: pod.utsns }),
      ...(sharesHostIpc ? {} : { ipc: pod.ipcns }),
      pid: pidNamespaceOf(container.config, sandbox, host),
    },
    cgroup: {
      path: cgroupsPathOf(host, sandbox.config.linux?.cgroupParent ?? "", container.id),
      layout: host.facts.cgroupLayout,
    },
    host: host.facts,
    hostname: hostnameOf(sandbox),
  });
}

function pidNamespaceOf(
  config: cri.ContainerConfig,
  sandbox: SandboxIn<"ready">,
  host: Host,
): { kind: "new" } | { kind: "host" } | { kind: "path"; path: string } {
  const options = config.linux?.securityContext?.namespaceOptions;
  const mode = options?.pid ?? "POD";
  switch (mode) {
    case "CONTAINER":
      return { kind: "new" };
    case "NODE":
      return { kind: "host" };
    case "TARGET":
      return { kind: "path", path: `/proc/${targetPid(options?.targetId ?? "", sandbox, host)}/ns/pid` };
    case "POD":
      if (sandbox.pause) return { kind: "path", path: `/proc/${sandbox.pause.pid}/ns/pid` };
      throw new CriError(Code.InvalidArgument, `pod sandbox "${sandbox.id}" has no pod-wide PID namespace to share`);
  }
}

function targetPid(targetId: string, sandbox: SandboxIn<"ready">, host: Host): number {
  const target = host.containers.require(targetId);
  if (target.sandboxId !== sandbox.id) {
    throw new CriError(Code.InvalidArgument, `target container "${targetId}" is not in pod sandbox "${sandbox.id}"`);
  }
  if (target.state === "running") return target.init.pid;
  throw new CriError(Code.FailedPrecondition, `target container "${targetId}" is not running`);
}

/** kubelet owns the log directory; a link put in the log file's place would make the monitor write where it points. */
async function prepareLog(logPath: string): Promise<void> {
  if (logPath === "") return;
  await mkdir(dirname(logPath), { recursive: true, mode: 0o755 });
  const found = await lstat(logPath).catch(() => undefined);
  if (found && !found.isFile()) await rm(logPath);
}

function imageDefaultsOf(image: StoredImage): ImageDefaults {
  return image.config;
}
