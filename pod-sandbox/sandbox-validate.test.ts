import { describe, expect, it } from "vitest";
import { Code, loadJsonCodecs } from "../cri-api/index.ts";
import { validateSandboxConfig } from "./sandbox-validate.ts";

const codec = loadJsonCodecs().PodSandboxConfig;
const metadata = { name: "web", namespace: "default", uid: "u1" };

function validate(json: object, cgroupDriver: "cgroupfs" | "systemd" = "cgroupfs"): unknown {
  const config = {
    root: "/r",
    state: "/s",
    cgroupDriver,
    defaultRuntime: "crun",
    imageVolumes: "mkdir",
    runtimeVersion: "0",
  } as const;
  return validateSandboxConfig({ config }, codec.fromJson({ metadata, ...json }));
}

const modes = (namespaceOptions: object): object => ({ linux: { securityContext: { namespaceOptions } } });

describe("validateSandboxConfig", () => {
  it("takes the least that there can be", () => {
    expect(validate({})).toMatchObject({ metadata });
  });

  it("refuses a missing config and missing metadata", () => {
    const host = {
      config: {
        root: "",
        state: "",
        cgroupDriver: "cgroupfs",
        defaultRuntime: "",
        imageVolumes: "mkdir",
        runtimeVersion: "",
      },
    } as const;
    expect(() => validateSandboxConfig(host, null)).toThrow("config is missing");
    expect(() => validateSandboxConfig(host, codec.fromJson({}))).toThrow("metadata is missing");
  });

  it.each(["name", "namespace", "uid"])(
    "refuses a metadata.%s that is empty or could be a path, a line or a novel",
    (field) => {
      for (const value of ["", "a/b", "../x", "a\nb", "a\0b", "x".repeat(254)]) {
        expect(() => validate({ metadata: { ...metadata, [field]: value } })).toThrow(
          expect.objectContaining({ code: Code.InvalidArgument }),
        );
      }
    },
  );

  it.each([
    ["a host name with a line end", { hostname: "web\nroot" }],
    ["a host name longer than the kernel takes", { hostname: "x".repeat(65) }],
    ["a relative log directory", { logDirectory: "var/log" }],
    ["a cgroup parent that climbs", { linux: { cgroupParent: "/kubepods/../../system" } }],
    ["a name server with a second line", { dnsConfig: { servers: ["1.1.1.1\noptions x"] } }],
    ["a network namespace of a container", modes({ network: "CONTAINER" })],
    ["an IPC namespace of a target", modes({ ipc: "TARGET" })],
    ["a PID namespace of a target", modes({ pid: "TARGET" })],
    ["a user namespace mode of a container", modes({ usernsOptions: { mode: "CONTAINER" } })],
    ["a user namespace without mappings", modes({ usernsOptions: { mode: "POD" } })],
    ["a bandwidth that is none", { annotations: { "kubernetes.io/egress-bandwidth": "1e9" } }],
    ["a port outside the range", { portMappings: [{ hostPort: 70_000, containerPort: 80 }] }],
    ["a sysctl of the whole host", { linux: { sysctls: { "kernel.panic": "1" } } }],
  ])("refuses %s", (_, json) => {
    expect(() => validate(json)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  it("asks for a slice with the systemd driver, and takes one with either", () => {
    expect(() => validate({ linux: { cgroupParent: "/kubepods/pod1" } }, "systemd")).toThrow("is no slice");
    validate({ linux: { cgroupParent: "kubepods-pod1.slice" } }, "systemd");
    validate({ linux: { cgroupParent: "/kubepods/pod1" } });
  });
});
