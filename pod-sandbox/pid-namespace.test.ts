import { readlink } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { Code } from "../cri-api/index.ts";
import { processIdentity } from "../native/index.ts";
import type { ContainerIn } from "./container.ts";
import type { Host } from "./host.ts";
import { openPidNamespace } from "./pid-namespace.ts";
import { inCreated, testContainer, testSandbox } from "./testing.ts";

const pod = { ...testSandbox("pod"), state: "ready", ips: [] } as const;
const identity = await processIdentity(process.pid);
if (!identity) throw new Error("this process is not there");
const running = {
  ...inCreated(testContainer("target", pod)),
  init: identity,
  state: "running",
  startedAtNs: 1n,
} as const;

function open(options: object, target: object = {}, sandbox = pod as Parameters<typeof openPidNamespace>[1]) {
  const { config } = testContainer("web", pod, { linux: { securityContext: { namespaceOptions: options } } });
  const found = { ...running, ...target } as ContainerIn<"running">;
  return openPidNamespace(config, sandbox, { containers: { require: () => found } as unknown as Host["containers"] });
}

describe("openPidNamespace", () => {
  it("needs no path for a namespace of its own or the host's", async () => {
    await using own = await open({ pid: "CONTAINER" });
    await using hosts = await open({ pid: "NODE" });
    expect([own.pid, hosts.pid]).toEqual([{ kind: "new" }, { kind: "host" }]);
  });

  it("holds the pod's and a target's by a path that the end of their process does not change", async () => {
    await using ofPod = await open({ pid: "POD" }, {}, { ...pod, pause: identity });
    await using ofTarget = await open({ pid: "TARGET", targetId: "x" });
    for (const { pid } of [ofPod, ofTarget]) {
      const path = pid.kind === "path" ? pid.path : "";
      expect(path).toMatch(new RegExp(`^/proc/${process.pid}/fd/\\d+$`));
      expect(await readlink(path)).toBe(await readlink("/proc/self/ns/pid"));
    }
  });

  it.each([
    ["process has another's pid by now", { init: { ...identity, startTime: "1" } }],
    ["process is gone", { init: { pid: 2 ** 22 + 1, startTime: "1" } }],
    ["container is not running", { state: "created" }],
  ])("shares nothing when the target's %s", async (_, target) => {
    await expect(open({ pid: "TARGET", targetId: "x" }, target)).rejects.toMatchObject({
      code: Code.FailedPrecondition,
    });
  });

  it("shares nothing of another pod, nor what a pod has not", async () => {
    const foreign = open({ pid: "TARGET", targetId: "x" }, { sandboxId: "other" });
    await expect(foreign).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(open({ pid: "POD" })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});
