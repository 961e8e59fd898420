import { describe, expect, it } from "vitest";
import { loadJsonCodecs } from "../cri-api/index.ts";
import { attachmentOf, usesHostNetwork, validatePortMappings } from "./network.ts";

const codec = loadJsonCodecs().PodSandboxConfig;

function attachmentFor(json: object): ReturnType<typeof attachmentOf> {
  return attachmentOf("abc", codec.fromJson({ metadata: { name: "web", namespace: "ns", uid: "u" }, ...json }), "/ns");
}

describe("attachmentOf", () => {
  it("hands on the mappings that have a host port, in CNI's spelling", () => {
    const { portMappings } = attachmentFor({
      portMappings: [
        { protocol: "TCP", containerPort: 80, hostPort: 8080, hostIp: "127.0.0.1" },
        { protocol: "UDP", containerPort: 53 },
      ],
    });
    expect(portMappings).toEqual([{ hostPort: 8080, containerPort: 80, protocol: "tcp", hostIP: "127.0.0.1" }]);
  });

  it.each([
    ["1M", 1_000_000],
    ["10Mi", 10_485_760],
    ["1.5k", 1500],
    ["5000", 5000],
  ])("reads the bandwidth annotation %s as bits per second", (text, rate) => {
    const { bandwidth } = attachmentFor({ annotations: { "kubernetes.io/ingress-bandwidth": text } });
    expect(bandwidth).toEqual({ ingressRate: rate, ingressBurst: 2_147_483_647 });
  });

  it.each(["", "fast", "-1M", "999", "1e9", "2P", "0x10M"])("refuses the bandwidth annotation %j", (text) => {
    expect(() => attachmentFor({ annotations: { "kubernetes.io/egress-bandwidth": text } })).toThrow(
      "invalid bandwidth annotation",
    );
  });
});

describe("validatePortMappings", () => {
  it.each([
    { hostPort: 65_536, containerPort: 80 },
    { hostPort: -1, containerPort: 80 },
    { hostPort: 80, containerPort: 0 },
  ])("refuses $hostPort:$containerPort", (ports) => {
    const mapping = { protocol: "TCP", hostIp: "", ...ports } as const;
    expect(() => validatePortMappings([mapping])).toThrow("invalid port mapping");
  });
});

describe("usesHostNetwork", () => {
  it("is true for NODE and false where the request says nothing", () => {
    const host = { linux: { securityContext: { namespaceOptions: { network: "NODE" } } } };
    expect(usesHostNetwork(codec.fromJson(host))).toBe(true);
    expect(usesHostNetwork(codec.fromJson({}))).toBe(false);
  });
});
