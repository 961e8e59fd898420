import type { cri } from "../../cri-api/index.ts";
import { validateDevice } from "./devices.ts";
import { invalid, quote } from "./invalid.ts";
import { validateMount } from "./mounts.ts";
import { chooseSeccomp } from "./seccomp.ts";
import { areSameIdMaps, idMapsOf, podIdMaps } from "./user-namespace.ts";

const cdiAnnotationPrefix = "cdi.k8s.io/";

/**
 * Refuses by name what is asked for but not built, and what the config's own fields contradict, before any work is
 * done. What depends on the image or the host is checked by `resolveUser` and `buildContainerSpec`.
 *
 * @throws {CriError} `InvalidArgument` naming the field.
 */
export function validateContainerConfig(config: cri.ContainerConfig, sandbox: cri.PodSandboxConfig): void {
  if (config.windows) throw invalid("windows containers are not supported");
  refuseCdi(config);
  for (const mount of config.mounts) validateMount(mount);
  for (const device of config.devices) validateDevice(device);
  const context = config.linux?.securityContext ?? null;
  validateNamespaces(context?.namespaceOptions ?? null, sandbox);
  chooseSeccomp(context);
}

function refuseCdi(config: cri.ContainerConfig): void {
  const [device] = config.CDIDevices;
  if (device) throw invalid(`CDI device ${quote(device.name)}: CDI devices are not supported`);
  const annotation = Object.keys(config.annotations).find((key) => key.startsWith(cdiAnnotationPrefix));
  if (annotation !== undefined) throw invalid(`annotation ${quote(annotation)}: CDI devices are not supported`);
}

function validateNamespaces(container: cri.NamespaceOption | null, sandbox: cri.PodSandboxConfig): void {
  const pod = podIdMaps(sandbox);
  const asked = container?.usernsOptions;
  if (asked && !areSameIdMaps(idMapsOf(asked), pod)) throw invalid("user namespace differs from that of the pod");
  if (container?.pid === "TARGET" && container.targetId === "") {
    throw invalid("PID namespace mode TARGET needs target_id");
  }
}
