import { readdir } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { compareTraces, type Traces } from "./harness/leaks.ts";
import { removeNodeNetwork } from "./harness/network.ts";
import { runCommand, tryCommand } from "./harness/run-command.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

/** What a power cut takes: every process, mount, namespace, cgroup and link, and all below /run. */
async function powerCut(before: Traces): Promise<void> {
  const { workspace, daemon } = berth;
  await daemon.stop("SIGKILL");
  await waitUntil("the end of every process", async () => {
    const lines = compareTraces(before, await berth.findTraces()).filter((line) => line.startsWith("processes: "));
    for (const line of lines) tryKill(Number(/^processes: (\d+)/u.exec(line)?.[1]));
    return lines.length === 0 ? true : undefined;
  });
  const mounts = (await berth.findTraces()).mounts.map((line) => line.split(" ")[0] ?? "");
  for (const mount of mounts.sort().toReversed()) await tryCommand(["umount", "--lazy", mount]);
  await runCommand(["rm", "-rf", "--one-file-system", workspace.state]);
  await runCommand(["mkdir", "-m", "0711", workspace.state]);
  await removeNodeNetwork(workspace);
  const cgroups = `/sys/fs/cgroup${workspace.cgroupParent} /sys/fs/cgroup/*${workspace.cgroupParent}`;
  await runCommand([
    "sh",
    "-c",
    `for d in ${cgroups}; do [ ! -d $d ] || find $d -mindepth 1 -depth -type d -delete; done`,
  ]);
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // it has ended by itself
  }
}

async function leasedAddresses(): Promise<readonly string[]> {
  const names = await readdir(berth.workspace.ipamDir, { recursive: true });
  return names.map((name) => path.basename(name)).filter((name) => /^[\d.]+$/u.test(name));
}

test.each(["crun", "runc"])(
  "after a power cut all is known, nothing lives, and all can be removed (%s)",
  async (runtimeHandler) => {
    const before = await berth.findTraces();
    const linux = { securityContext: { namespaceOptions: { pid: "POD" as const } } };
    const pod = await berth.runPod({ runtimeHandler, config: { linux } });
    const running = await berth.startContainer(pod, { command: ["sh", "-c", "echo alive; sleep 1000"] });
    const created = await berth.createContainer(pod);
    const { containerId: ended, status: endedBefore } = await berth.runToEnd(pod, [
      "sh",
      "-c",
      "echo last words; exit 3",
    ]);
    await berth.waitForLog(running, "alive");
    const stopped = await berth.runPod({ runtimeHandler });
    await berth.call("StopPodSandbox", { podSandboxId: stopped.id });
    const images = await berth.call("ListImages");
    const podBefore = (await berth.call("PodSandboxStatus", { podSandboxId: pod.id })).status;
    const runningBefore = await berth.containerStatus(running);
    expect(await leasedAddresses()).toEqual([podBefore?.network?.ip]);

    await powerCut(before);
    await berth.daemon.start();

    const podAfter = (await berth.call("PodSandboxStatus", { podSandboxId: pod.id })).status;
    expect(podAfter).toEqual({ ...podBefore, state: "SANDBOX_NOTREADY" });
    const { startedAt } = runningBefore;
    expect(await berth.containerStatus(running)).toMatchObject({
      state: "CONTAINER_EXITED",
      exitCode: 255,
      reason: "Error",
      startedAt,
    });
    expect(await berth.containerStatus(created)).toMatchObject({ state: "CONTAINER_EXITED", startedAt: 0n });
    expect(await berth.containerStatus(ended)).toEqual(endedBefore);
    expect(await berth.readLog(running)).toEqual(["stdout alive"]);
    expect(await berth.readLog(ended)).toEqual(["stdout last words"]);
    expect(await berth.call("ListImages")).toEqual(images);
    const { info } = await berth.call("ContainerStatus", { containerId: running, verbose: true });
    expect(JSON.parse(info["info"] ?? "")).toMatchObject({ pid: 0 });

    // kubelet makes the pod's next attempt before it removes the one that died
    const metadata = { ...pod.config.metadata, attempt: 1 };
    const next = await berth.runPod({ runtimeHandler, config: { ...pod.config, linux, metadata } });
    const again = await berth.startContainer(next);
    expect(await berth.shell(again, "echo up")).toBe("up");
    expect(await berth.daemon.readLog()).not.toContain("will have to be pulled again");

    await berth.call("StopPodSandbox", { podSandboxId: pod.id });
    const { status } = await berth.call("PodSandboxStatus", { podSandboxId: next.id });
    expect(await leasedAddresses()).toEqual([status?.network?.ip]);
    for (const { id } of [pod, stopped, next]) await berth.removePod(id);
    expect(await leasedAddresses()).toEqual([]);
    await berth.expectNothingNew(before);
  },
);
