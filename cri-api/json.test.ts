import { describe, expect, it } from "vitest";
import { loadJsonCodecs } from "./json.ts";

const codecs = loadJsonCodecs();

describe("JSON codecs", () => {
  it("carry int64 beyond 2^53 and bytes that are not UTF-8 through JSON text", () => {
    const config = codecs.ContainerConfig.fromJson(
      codecs.ContainerConfig.toJson({
        metadata: { name: "web", attempt: 3 },
        envs: [{ key: "RAW", value: Buffer.from([0xff, 0x00, 0xfe]) }],
        linux: { resources: { memoryLimitInBytes: 2n ** 53n + 1n }, securityContext: { runAsUser: { value: -1n } } },
        annotations: { $int64: "5", ["__proto__"]: "kept" },
        stopSignal: "SIGNAL_SIGUSR1",
      }),
    );
    const again = codecs.ContainerConfig.fromJson(JSON.parse(JSON.stringify(codecs.ContainerConfig.toJson(config))));
    expect(again).toEqual(config);
    expect(again.linux?.resources?.memoryLimitInBytes).toBe(2n ** 53n + 1n);
    expect(again.linux?.securityContext?.runAsUser?.value).toBe(-1n);
    expect(again.envs[0]?.value).toEqual(Buffer.from([0xff, 0x00, 0xfe]));
    expect(again.annotations["$int64"]).toBe("5");
    expect(again.stopSignal).toBe("SIGNAL_SIGUSR1");
    expect(again.image).toBeNull();
  });

  it("refuse what is no message", () => {
    expect(() => codecs.PodSandboxConfig.fromJson("text")).toThrow("no PodSandboxConfig");
    expect(() => codecs.PodSandboxConfig.fromJson({ labels: 5 })).toThrow("object expected");
  });
});
