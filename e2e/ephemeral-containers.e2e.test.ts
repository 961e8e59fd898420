import { describe, expect, test } from "vitest";
import { Code, type cri, type Init } from "../cri-api/index.ts";
import { containerConfig } from "./harness/configs.ts";
import { useDaemon } from "./harness/fixture.ts";

const berth = useDaemon();

/** What kubelet asks for when `kubectl debug --target` names a container. */
const lookInto = (targetId: string): Init<cri.ContainerConfig> => ({
  command: ["sleep", "1000"],
  linux: { securityContext: { namespaceOptions: { pid: "TARGET", targetId } } },
});

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  test("a debug container sees its target's processes, and only as long as that runs", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const target = await berth.startContainer(pod, { command: ["sh", "-c", "sleep 4711; exit 0"] });
    const other = await berth.startContainer(pod, { command: ["sleep", "4712"] });
    const first = await berth.startContainer(pod, lookInto(target));
    const seen = await berth.shell(first, "ps -o args");
    expect(seen).toContain("sleep 4711");
    expect(seen).not.toContain("sleep 4712");
    expect(await berth.shell(first, "ls /proc/1/root/etc/passwd")).toBe("/proc/1/root/etc/passwd");

    await berth.daemon.stop("SIGKILL");
    await berth.daemon.start();
    expect(await berth.shell(first, "ps -o args")).toContain("sleep 4711");
    await berth.call("StopContainer", { containerId: first, timeout: 0n });
    expect((await berth.containerStatus(target)).state).toBe("CONTAINER_RUNNING");
    expect(await berth.shell(target, "ps -o args")).not.toContain("sleep 1000");

    const second = await berth.startContainer(pod, lookInto(target));
    await berth.call("StopContainer", { containerId: target, timeout: 0n });
    expect(await berth.waitForExit(second)).toMatchObject({ exitCode: 137, reason: "Error" });
    expect((await berth.containerStatus(other)).state).toBe("CONTAINER_RUNNING");
  });

  test("a target that has ended, is of another pod, or is none is refused", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const { containerId: ended } = await berth.runToEnd(pod, ["true"]);
    const foreign = await berth.startContainer(await berth.runPod({ runtimeHandler }));
    const refuse = async (targetId: string, code: Code, text: RegExp): Promise<void> => {
      const config = containerConfig("debug", berth.image("busybox"), lookInto(targetId));
      const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
      await berth.expectFailure("CreateContainer", request, code, text);
    };
    await refuse(ended, Code.FailedPrecondition, /target container ".*" is not running/u);
    await refuse(foreign, Code.InvalidArgument, /target container ".*" is not in pod sandbox/u);
    await refuse("f".repeat(64), Code.NotFound, /"f+" not found/u);
    await refuse("", Code.InvalidArgument, /target_id/u);
  });
});
