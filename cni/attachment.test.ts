import { describe, expect, it } from "vitest";
import { capabilityArgsOf, cniArgsOf, validateAttachment } from "./attachment.ts";
import { createAttachment } from "./testing.ts";

describe("an attachment", () => {
  it("is told to plugins by the names both peers use", () => {
    expect(
      cniArgsOf(createAttachment("pod-a"))
        .map((pair) => pair.join("="))
        .join(";"),
    ).toBe(
      "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=pod-a;K8S_POD_UID=0a1b",
    );
  });

  it.each([
    [{ containerId: "" }, /container id/],
    [{ containerId: "../x" }, /container id/],
    [{ containerId: "-x" }, /container id/],
    [{ ifName: "" }, /interface name/],
    [{ ifName: "sixteen-letters-" }, /interface name/],
    [{ ifName: "a/b" }, /interface name/],
    [{ ifName: "a b" }, /interface name/],
    [{ ifName: ".." }, /interface name/],
    [{ pod: { name: "a;CNI_X=1", namespace: "b", uid: "c" } }, /pod name/],
    [{ pod: { name: "a", namespace: "b=c", uid: "c" } }, /pod namespace/],
    [{ pod: { name: "a", namespace: "b", uid: "c\n" } }, /pod uid/],
    [{ netnsPath: "/run/\u0000" }, /namespace path/],
  ])("is refused as an invalid argument: %j", (overrides, message) => {
    const attempt = (): void => validateAttachment({ ...createAttachment("pod-a"), ...overrides });
    expect(attempt).toThrow(expect.objectContaining({ code: 3, message: expect.stringMatching(message) as unknown }));
  });

  it("asks for nothing by default", () => {
    expect(capabilityArgsOf(createAttachment("pod-a", { cgroupPath: "", bandwidth: {} }))).toEqual({});
  });

  it("leaves out ports that are not on the host", () => {
    const mapped = { hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "" } as const;
    const inside = { hostPort: 0, containerPort: 81, protocol: "udp", hostIP: "" } as const;
    expect(capabilityArgsOf(createAttachment("pod-a", { portMappings: [mapped, inside] }))).toEqual({
      portMappings: [mapped],
    });
    expect(capabilityArgsOf(createAttachment("pod-a", { portMappings: [inside] }))).toEqual({});
  });

  it("gives a rate without a burst the largest burst", () => {
    expect(
      capabilityArgsOf(
        createAttachment("pod-a", { bandwidth: { ingressRate: 1000, egressRate: 2000, egressBurst: 3000 } }),
      ),
    ).toEqual({
      bandwidth: { ingressRate: 1000, ingressBurst: 2147483647, egressRate: 2000, egressBurst: 3000 },
    });
  });

  it("names what it asks for as the conventions do", () => {
    const asked = {
      dns: { servers: ["10.0.0.10"], searches: ["svc"], options: ["ndots:5"] },
      cgroupPath: "/kubepods/pod1",
      ips: ["10.1.0.9/24"],
      mac: "02:00:00:00:00:01",
      ipRanges: [[{ subnet: "10.1.0.0/24" }]],
    };
    const rest = { aliases: { net: ["web"] } };
    expect(
      capabilityArgsOf(createAttachment("pod-a", { ...asked, ...rest, deviceId: "d", infinibandGuid: "g" })),
    ).toEqual({
      ...asked,
      ...rest,
      deviceID: "d",
      infinibandGUID: "g",
    });
  });
});
