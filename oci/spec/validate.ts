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
  cdiDeviceNames(config);
  for (const mount of config.mounts) validateMount(mount);
  for (const device of config.devices) validateDevice(device);
  const context = config.linux?.securityContext ?? null;
  validateNamespaces(context?.namespaceOptions ?? null, sandbox);
  chooseSeccomp(context);
}

/** `vendor.com/class=name` */
const cdiDeviceName =
  /^[A-Za-z](?:[\w.-]*[A-Za-z0-9])?\/[A-Za-z](?:[\w.-]*[A-Za-z0-9])?=[A-Za-z0-9](?:[\w.:-]*[A-Za-z0-9])?$/;
const maxCdiDevices = 1000;

/**
 * The CDI devices that a container asks for, each once: by the field, then by annotations `cdi.k8s.io/…`, which device
 * plugins wrote before there was one.
 *
 * @throws {CriError} `InvalidArgument` for a name that is not `vendor/class=name`.
 */
export function cdiDeviceNames({ CDIDevices, annotations }: cri.ContainerConfig): readonly string[] {
  const listed = Object.entries(annotations).flatMap(([key, value]) =>
    key.startsWith(cdiAnnotationPrefix) ? value.split(",").map((name) => name.trim()) : [],
  );
  const names = [...new Set([...CDIDevices.map(({ name }) => name), ...listed])];
  const wrong = names.find((name) => name.length > 512 || !cdiDeviceName.test(name));
  if (wrong !== undefined) throw invalid(`CDI device ${quote(wrong)} is not a name such as "vendor.com/class=name"`);
  if (names.length > maxCdiDevices) throw invalid(`more than ${maxCdiDevices} CDI devices`);
  return names;
}

function validateNamespaces(container: cri.NamespaceOption | null, sandbox: cri.PodSandboxConfig): void {
  const pod = podIdMaps(sandbox);
  const asked = container?.usernsOptions;
  if (asked && !areSameIdMaps(idMapsOf(asked), pod)) throw invalid("user namespace differs from that of the pod");
  if (container?.pid === "TARGET" && container.targetId === "") {
    throw invalid("PID namespace mode TARGET needs target_id");
  }
}
