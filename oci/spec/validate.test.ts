import { Code } from "../../cri-api/index.ts";
import { expect, test } from "vitest";
import { containerConfig, criMount, sandboxConfig, securityContext } from "./testing.ts";
import { validateContainerConfig } from "./validate.ts";

const image = { image: "x", annotations: {}, userSpecifiedImage: "", runtimeHandler: "", imageRef: "" };
const userns = (mode: "POD" | "CONTAINER" | "NODE" | "TARGET", mappings = 0) => ({
  network: "POD" as const,
  pid: "CONTAINER" as const,
  ipc: "POD" as const,
  targetId: "",
  usernsOptions: {
    mode,
    uids: Array.from({ length: mappings }, () => ({ hostId: 1, containerId: 0, length: 1 })),
    gids: Array.from({ length: mappings }, () => ({ hostId: 1, containerId: 0, length: 1 })),
  },
});
const linux = (overrides: Parameters<typeof securityContext>[0]) => ({
  resources: null,
  securityContext: securityContext(overrides),
});

test("takes a config that asks for nothing that is missing", () => {
  const config = containerConfig({ mounts: [criMount()], linux: linux({ namespaceOptions: userns("NODE") }) });
  expect(() => validateContainerConfig(config, sandboxConfig())).not.toThrow();
  expect(() => validateContainerConfig(containerConfig({ linux: null }), sandboxConfig())).not.toThrow();
});

test.each([
  ["a user namespace that the pod has not", { linux: linux({ namespaceOptions: userns("POD", 1) }) }, /differs from/],
  ["a user namespace of its own", { linux: linux({ namespaceOptions: userns("CONTAINER") }) }, /not a mode of a pod/],
  ["another's user namespace", { linux: linux({ namespaceOptions: userns("TARGET") }) }, /not a mode of a pod/],
  ["mappings without one", { linux: linux({ namespaceOptions: userns("NODE", 1) }) }, /takes no id mappings/],
  ["an image mount of a host path", { mounts: [criMount({ image })] }, /host_path and image exclude each other/],
  [
    "a CDI device without a class",
    { CDIDevices: [{ name: "vendor.com=0" }] },
    /CDI device "vendor.com=0" is not a name/,
  ],
  [
    "a CDI device in an annotation",
    { annotations: { "cdi.k8s.io/x": "vendor.com/gpu=0,../x" } },
    /"..\/x" is not a name/,
  ],
  [
    "a device without a host path",
    { devices: [{ containerPath: "/dev/x", hostPath: "", permissions: "" }] },
    /host_path/,
  ],
  ["an unknown seccomp profile", { linux: linux({ seccompProfilePath: "other" }) }, /unknown seccomp profile/],
  [
    "a target without its id",
    { linux: linux({ namespaceOptions: { ...userns("NODE"), pid: "TARGET" as const } }) },
    /needs target_id/,
  ],
])("refuses %s by name", (_, overrides, message) => {
  const attempt = (): void => validateContainerConfig(containerConfig(overrides), sandboxConfig());
  expect(attempt).toThrow(message);
  expect(attempt).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
});

test("takes the pod's user namespace for its containers, named or not, and no other", () => {
  const sandbox = sandboxConfig({ namespaceOptions: userns("POD", 1) });
  const attempt = (namespaceOptions: ReturnType<typeof userns> | null) => (): void =>
    validateContainerConfig(containerConfig({ linux: linux({ namespaceOptions }) }), sandbox);
  expect(attempt(null)).not.toThrow();
  expect(attempt(userns("POD", 1))).not.toThrow();
  expect(attempt(userns("NODE"))).toThrow(/user namespace differs from that of the pod/);
});
