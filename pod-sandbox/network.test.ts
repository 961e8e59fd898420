import { describe, expect, it } from "vitest";
import { loadJsonCodecs } from "../cri-api/index.ts";
import { attachmentOf, usesHostNetwork, validateNetworkWishes } from "./network.ts";

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

describe("validateNetworkWishes", () => {
  const metadata = { name: "web", namespace: "ns", uid: "u" };
  const validate = (json: object): void => validateNetworkWishes(codec.fromJson({ metadata, ...json }));
  const hostNetwork = { linux: { securityContext: { namespaceOptions: { network: "NODE" } } } };
  const tooFast = { annotations: { "kubernetes.io/ingress-bandwidth": "fast" } };

  it.each([
    { hostPort: 65_536, containerPort: 80 },
    { hostPort: -1, containerPort: 80 },
    { hostPort: 80, containerPort: 0 },
  ])("refuses the port mapping $hostPort:$containerPort", (ports) => {
    expect(() => validate({ portMappings: [ports] })).toThrow("invalid port mapping");
  });
  it.each(["localhost", "10.0.0.256", "::1%eth0;x"])("refuses the host address %j", (hostIp) => {
    expect(() => validate({ portMappings: [{ hostPort: 80, containerPort: 80, hostIp }] })).toThrow("not an address");
  });
  it("takes ports without an address, and addresses of both families", () => {
    const ports = ["", "127.0.0.1", "::1"].map((hostIp) => ({ hostPort: 80, containerPort: 80, hostIp }));
    expect(() => validate({ portMappings: ports })).not.toThrow();
  });
  it.each(["name", "namespace", "uid"])("refuses a %s that would split the plugins' arguments", (field) => {
    expect(() => validate({ metadata: { ...metadata, [field]: "a;K8S_POD_NAME=b" } })).toThrow(`metadata.${field}`);
  });
  it("refuses a bandwidth that could be told neither at ADD nor at DEL", () => {
    expect(() => validate(tooFast)).toThrow("invalid bandwidth annotation");
  });
  it("leaves a pod of the host's network alone", () => {
    expect(() => validate({ ...tooFast, ...hostNetwork })).not.toThrow();
  });
});

describe("usesHostNetwork", () => {
  it("is true for NODE and false where the request says nothing", () => {
    const host = { linux: { securityContext: { namespaceOptions: { network: "NODE" } } } };
    expect(usesHostNetwork(codec.fromJson(host))).toBe(true);
    expect(usesHostNetwork(codec.fromJson({}))).toBe(false);
  });
});
