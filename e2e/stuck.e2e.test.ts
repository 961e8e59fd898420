import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import { Code } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { mountDeadFileSystem } from "./harness/dead-file-system.ts";
import { useDaemon } from "./harness/fixture.ts";
import { freeze, freezerRoot, setFreezer } from "./harness/freezer.ts";
import { timeListsDuring } from "./harness/list-clock.ts";
import { type Mood, type MoodyProgram, writeMoodyProgram } from "./harness/moody-program.ts";
import { pluginDirectory } from "./harness/network.ts";
import { waitUntil } from "./harness/wait-until.ts";

let runtime: MoodyProgram;
let plugin: MoodyProgram;
let ipam: MoodyProgram;
let monitor: MoodyProgram;

/** The handler "moody", the monitor and the plugins "bridge" and "host-local" do as they are told; crun itself stays well. */
const berth = useDaemon({
  prepare: async ({ temporary }) => {
    runtime = await writeMoodyProgram(temporary, "moody-crun", "/usr/bin/crun");
    plugin = await writeMoodyProgram(temporary, "bridge", path.join(pluginDirectory, "bridge"));
    ipam = await writeMoodyProgram(temporary, "host-local", path.join(pluginDirectory, "host-local"));
    monitor = await writeMoodyProgram(temporary, "conmon", "/usr/bin/conmon");
    return {
      config: { monitor: monitor.path },
      runtimes: { crun: { path: "/usr/bin/crun" }, moody: { path: runtime.path } },
      pluginDirectory: temporary,
    };
  },
});
afterEach(async () => {
  await Promise.all([runtime, plugin, ipam, monitor].map((program) => program.become("well")));
  await Promise.all([runtime, plugin, ipam, monitor].map((program) => program.killAll()));
});

const patienceMs = 2_000;

/** What everybody else does meanwhile: pods that start, run and go, lists, statuses. */
async function othersGoOn(pods: number): Promise<void> {
  const one = async (): Promise<void> => {
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_RUNNING");
    expect(await berth.shell(containerId, "echo here")).toBe("here");
    const { containers } = await berth.call("ListContainers", { filter: { podSandboxId: pod.id } });
    expect(containers.map(({ id }) => id)).toEqual([containerId]);
    await berth.removePod(pod.id);
  };
  await Promise.all(Array.from({ length: pods }, one));
}

async function waitingHelpers(): Promise<readonly string[]> {
  return (await berth.findTraces()).processes.filter((line) => line.includes("berth-helper resolve"));
}

describe("a host path on a dead file system", () => {
  test("costs its container the caller's deadline, and nobody else anything", async () => {
    await using dead = await mountDeadFileSystem(path.join(berth.workspace.temporary, "dead"));
    const pod = await berth.runPod();
    const hostPath = path.join(berth.workspace.temporary, "dead", "volume");
    const create = async (_: unknown, index: number): Promise<void> => {
      const mounts = [{ hostPath, containerPath: "/volume" }];
      const config = containerConfig(`stuck${index}`, berth.image("busybox"), { mounts });
      const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
      await expect(berth.call("CreateContainer", request, { timeoutMs: patienceMs })).rejects.toMatchObject({
        code: Code.DeadlineExceeded,
      });
    };
    const medianMs = await timeListsDuring("10 pods beside 8 dead volumes", berth.daemon.socketPath, () =>
      Promise.all([...Array.from({ length: 8 }, create), othersGoOn(10)]),
    );
    expect(medianMs).toBeLessThan(50);
    await berth.removePod(pod.id); // the file system is still dead
    await dead.end();
  });

  test("keeps nobody waiting for it when the daemon was killed meanwhile", async () => {
    const hostPath = path.join(berth.workspace.directory, "forsaken", "volume"); // where no look at the traces leads
    await using _dead = await mountDeadFileSystem(path.dirname(hostPath));
    const pod = await berth.runPod();
    const config = containerConfig("forsaken", berth.image("busybox"), {
      mounts: Array.from({ length: 8 }, (_, index) => ({ hostPath, containerPath: `/volume${index}` })),
    });
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    const create = berth.call("CreateContainer", request).catch(() => undefined);
    await waitUntil("somebody to wait", async () => (await waitingHelpers()).length > 0 || undefined);
    await berth.daemon.stop("SIGKILL");
    await create;
    const waiting = await waitingHelpers();
    await berth.daemon.start();
    const isLeft = (line: string): boolean => waiting.includes(line);
    await waitUntil("their end", async () => ((await waitingHelpers()).some(isLeft) ? undefined : true));
    expect(waiting).not.toEqual([]);
    await berth.removePod(pod.id); // the file system is still dead
  });

  test("that comes back as an error is told with its reason", async () => {
    await using dead = await mountDeadFileSystem(path.join(berth.workspace.temporary, "gone"));
    const pod = await berth.runPod();
    await dead.end();
    const mounts = [{ hostPath: path.join(berth.workspace.temporary, "gone", "volume"), containerPath: "/volume" }];
    const config = containerConfig("gone", berth.image("busybox"), { mounts });
    await berth.expectFailure(
      "CreateContainer",
      { podSandboxId: pod.id, config, sandboxConfig: pod.config },
      Code.InvalidArgument,
      /host path ".*\/gone\/volume": ENOTCONN/u,
    );
  });
});

describe("a log directory on a dead file system", () => {
  test("costs its containers the caller's deadline, and nobody else anything", async () => {
    await using dead = await mountDeadFileSystem(path.join(berth.workspace.temporary, "dead-logs"));
    const config = podConfig(berth.workspace, "unlogged", { logDirectory: path.join(dead.place, "pod") });
    const { podSandboxId } = await berth.call("RunPodSandbox", { config });
    const creates = Array.from({ length: 8 }, async (_, index) => {
      const request = {
        podSandboxId,
        config: containerConfig(`stuck${index}`, berth.image("busybox")),
        sandboxConfig: config,
      };
      await expect(berth.call("CreateContainer", request, { timeoutMs: patienceMs })).rejects.toMatchObject({
        code: Code.DeadlineExceeded,
      });
    });
    const logged = async (): Promise<void> => {
      const { log } = await berth.runToEnd(await berth.runPod(), ["echo", "here"]);
      expect(log).toEqual(["stdout here"]);
    };
    await Promise.all([...creates, othersGoOn(10), logged()]);
    await berth.removePod(podSandboxId); // the file system is still dead
  });

  test("that comes back as an error is told with its reason", async () => {
    await using dead = await mountDeadFileSystem(path.join(berth.workspace.temporary, "gone-logs"));
    await dead.end();
    const sandboxConfig = podConfig(berth.workspace, "gone-logs", { logDirectory: path.join(dead.place, "pod") });
    const { podSandboxId } = await berth.call("RunPodSandbox", { config: sandboxConfig });
    onTestFinished(() => berth.removePod(podSandboxId));
    await berth.expectFailure(
      "CreateContainer",
      { podSandboxId, config: containerConfig("gone", berth.image("busybox")), sandboxConfig },
      Code.FailedPrecondition,
      /log path ".*\/pod\/gone\.log" cannot be had: ENOTCONN/u,
    );
  });

  test("which has died since costs a reopening its deadline, and no end of a container anything", async () => {
    const place = path.join(berth.workspace.temporary, "dying-logs");
    const pod = await berth.runPod({ config: { logDirectory: place } });
    const containerIds = await Promise.all(Array.from({ length: 8 }, () => berth.startContainer(pod)));
    await using _dead = await mountDeadFileSystem(place);
    const reopened = containerIds.map(async (containerId) => {
      await expect(berth.call("ReopenContainerLog", { containerId }, { timeoutMs: patienceMs })).rejects.toMatchObject({
        code: Code.DeadlineExceeded,
      });
    });
    await Promise.all([...reopened, othersGoOn(3)]);
    const stopped = containerIds.map(async (containerId) => {
      await berth.call("StopContainer", { containerId, timeout: 0n }); // so soon after its start that its log is read
      expect(await berth.containerStatus(containerId)).toMatchObject({ exitCode: 137 });
    });
    await Promise.all([...stopped, othersGoOn(3)]);
    await berth.removePod(pod.id);
  });
});

async function setFrozen(containerId: string, state: "FROZEN" | "THAWED"): Promise<void> {
  const { info } = await berth.call("ContainerStatus", { containerId, verbose: true });
  const { pid } = JSON.parse(info["info"] ?? "{}") as { pid: number };
  const cgroup = /^\d+:freezer:(.*)$/mu.exec(await readFile(`/proc/${pid}/cgroup`, "utf8"))?.[1] ?? "";
  await setFreezer(path.join(freezerRoot, cgroup), state);
}

test("a container that cannot die holds up its own stop alone, and ends when it can", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod);
  await setFrozen(containerId, "FROZEN");
  onTestFinished(() => setFrozen(containerId, "THAWED").catch(() => {}));
  const impatient = { timeoutMs: patienceMs };
  const late = expect.objectContaining({ code: Code.DeadlineExceeded });
  await Promise.all([
    expect(berth.call("StopContainer", { containerId, timeout: 1n }, impatient)).rejects.toEqual(late),
    expect(berth.call("ExecSync", { containerId, cmd: ["true"], timeout: 30n })).rejects.toThrow(containerId),
    berth.call("ContainerStats", { containerId }),
    othersGoOn(3),
  ]);
  expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_RUNNING");
  await expect(berth.call("StopPodSandbox", { podSandboxId: pod.id }, impatient)).rejects.toEqual(late);

  await setFrozen(containerId, "THAWED");
  expect(await berth.waitForExit(containerId)).toMatchObject({ exitCode: 137, reason: "Error" });
  await berth.removePod(pod.id);
});

const endless: readonly Mood[] = ["hang", "deaf", "flood"];
const brief: readonly Mood[] = ["die", "garbage"];

describe("a runtime", () => {
  test.each(endless)("in the mood to %s costs its create the deadline, and its pod can go", async (mood) => {
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const config = containerConfig("moody", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await runtime.become(mood);
    const create = berth.call("CreateContainer", request, { timeoutMs: patienceMs });
    await Promise.all([expect(create).rejects.toMatchObject({ code: Code.DeadlineExceeded }), othersGoOn(2)]);
    await runtime.become("well");
    await berth.removePod(pod.id);
  });

  test.each(brief)("in the mood to %s fails its create with a reason, and the retry succeeds", async (mood) => {
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const config = containerConfig("moody", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await runtime.become(mood);
    await berth.expectFailure("CreateContainer", request, Code.Internal, /container/u);
    await runtime.become("well");
    const { containerId } = await berth.call("CreateContainer", request);
    await berth.call("StartContainer", { containerId });
  });

  test("that lingers over a container that cannot die loses no trace of it", { timeout: 120_000 }, async () => {
    const before = await berth.findTraces();
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const config = containerConfig("moody", berth.image("busybox"));
    await runtime.become("lingering");
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    const create = berth.call("CreateContainer", request, { timeoutMs: 3 * patienceMs }); // frozen before
    const late = expect(create).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    const members = path.join("/sys/fs/cgroup/pids", berth.workspace.cgroupParent);
    const init = await waitUntil("the container's init", async () => {
      const names = (await readdir(members)).filter((name) => name.startsWith("berth-"));
      const texts = await Promise.all(names.map((name) => readFile(path.join(members, name, "cgroup.procs"), "utf8")));
      return Number.parseInt(texts.join(""), 10) || undefined;
    });
    {
      await using _frozen = await freeze([init]);
      await runtime.become("well");
      await late;
      const stop = berth.call("StopPodSandbox", { podSandboxId: pod.id }, { timeoutMs: 60_000 });
      await expect(stop).rejects.toThrow(/survives? SIGKILL/u);
    }
    await berth.removePod(pod.id);
    await berth.expectNothingNew(before);
  });

  test("in the mood to hang does not keep a container from being removed", { timeout: 120_000 }, async () => {
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const before = await berth.findTraces();
    const containerId = await berth.startContainer(pod);
    await runtime.become("hang");
    await berth.call("RemoveContainer", { containerId });
    await berth.expectNothingNew(before);
  });

  test.each(endless)("in the mood to %s does not keep a container from being stopped", async (mood) => {
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const containerId = await berth.startContainer(pod);
    await runtime.become(mood);
    await berth.call("StopContainer", { containerId, timeout: 0n });
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 137 });
    await runtime.become("well");
    await berth.removePod(pod.id);
  });
});

describe("a monitor", () => {
  test.each(endless)("in the mood to %s costs its create the deadline, and its pod can go", async (mood) => {
    const [pod, other] = [await berth.runPod(), await berth.runPod()];
    const containerId = await berth.startContainer(other);
    const config = containerConfig("moody", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await monitor.become(mood);
    const create = berth.call("CreateContainer", request, { timeoutMs: patienceMs });
    await expect(create).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    expect(await berth.shell(containerId, "echo here")).toBe("here");
    await berth.removePod(pod.id); // every monitor is still like that
    await berth.removePod(other.id);
  });

  test.each(brief)("in the mood to %s fails its create with a reason, and the retry succeeds", async (mood) => {
    const pod = await berth.runPod();
    const config = containerConfig("moody", berth.image("busybox"));
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config };
    await monitor.become(mood);
    await berth.expectFailure("CreateContainer", request, Code.Internal, /container/u);
    await monitor.become("well");
    const { containerId } = await berth.call("CreateContainer", request);
    await berth.call("StartContainer", { containerId });
  });

  test("that cannot die keeps its create for ever from nobody, and its pod can go when it can", async () => {
    const before = await berth.findTraces();
    const pod = await berth.runPod();
    const request = {
      podSandboxId: pod.id,
      config: containerConfig("moody", berth.image("busybox")),
      sandboxConfig: pod.config,
    };
    await monitor.become("hang");
    const create = berth.call("CreateContainer", request, { timeoutMs: 3 * patienceMs }); // frozen before
    const late = expect(create).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    const pids = await waitUntil("the monitor and its child", async () => {
      const found = await monitor.pids();
      return found.length >= 2 ? found : undefined;
    });
    {
      await using _frozen = await freeze(pids);
      await monitor.become("well");
      await Promise.all([late, othersGoOn(2)]);
      const stop = berth.call("StopPodSandbox", { podSandboxId: pod.id }, { timeoutMs: 60_000 });
      await expect(stop).rejects.toThrow(/monitor.*survives SIGKILL/u);
      await othersGoOn(1);
    }
    await berth.removePod(pod.id);
    await berth.expectNothingNew(before);
  });

  test("that cannot die keeps the record of its container until it can", async () => {
    const before = await berth.findTraces();
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    const bundle = path.join(berth.workspace.state, "containers", containerId);
    {
      await using _frozen = await freeze([Number(await readFile(path.join(bundle, "conmon.pid"), "utf8"))]);
      await berth.call("StopContainer", { containerId, timeout: 0n });
      await expect(berth.call("RemoveContainer", { containerId })).rejects.toThrow(/monitor.*survives SIGKILL/u);
      expect((await berth.containerStatus(containerId)).state).toBe("CONTAINER_EXITED");
    }
    await berth.call("RemoveContainer", { containerId });
    await berth.removePod(pod.id);
    await berth.expectNothingNew(before);
  });

  test("that does nothing any more while its container ends costs the exit code, and no more", async () => {
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    const bundle = path.join(berth.workspace.state, "containers", containerId);
    process.kill(Number(await readFile(path.join(bundle, "conmon.pid"), "utf8")), "SIGSTOP");
    const stop = berth.call("StopContainer", { containerId, timeout: 0n });
    await Promise.all([stop, othersGoOn(1)]);
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 255 });
    await berth.removePod(pod.id);
  });
});

describe("a runtime", () => {
  test.each(endless)("in the mood to %s costs a command its time, and an update the caller's", async (mood) => {
    const pod = await berth.runPod({ runtimeHandler: "moody" });
    const containerId = await berth.startContainer(pod);
    await runtime.become(mood);
    const late = { code: Code.DeadlineExceeded };
    const linux = { cpuShares: 512n };
    await Promise.all([
      expect(berth.call("ExecSync", { containerId, cmd: ["true"], timeout: 2n })).rejects.toMatchObject(late),
      expect(
        berth.call("UpdateContainerResources", { containerId, linux }, { timeoutMs: patienceMs }),
      ).rejects.toMatchObject(late),
      berth.call("ContainerStats", { containerId }),
    ]);
    await runtime.become("well");
    await runtime.killAll();
    expect(await berth.shell(containerId, "echo here")).toBe("here");
    await berth.call("UpdateContainerResources", { containerId, linux });
    expect((await berth.containerStatus(containerId)).resources?.linux?.cpuShares).toBe(512n);
  });
});

describe("a CNI plugin", () => {
  test.each(endless)("in the mood to %s costs its pod the deadline, and the retry gets the pod", async (mood) => {
    const config = podConfig(berth.workspace, `network-${mood}`);
    await plugin.become(mood);
    const run = berth.call("RunPodSandbox", { config }, { timeoutMs: patienceMs });
    await expect(run).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    await plugin.become("well");
    await othersGoOn(2);
    await plugin.killAll();
    const { podSandboxId } = await waitUntil("the half-made pod to be undone", () =>
      berth.call("RunPodSandbox", { config }),
    );
    expect((await berth.call("PodSandboxStatus", { podSandboxId })).status?.state).toBe("SANDBOX_READY");
    await berth.removePod(podSandboxId);
  });

  test.each(brief)("in the mood to %s fails its pod with a reason, and what is left can be removed", async (mood) => {
    const config = podConfig(berth.workspace, `network-${mood}`);
    await plugin.become(mood);
    await expect(berth.call("RunPodSandbox", { config })).rejects.toThrow(/plugin.*bridge/u);
    await plugin.become("well");
    // ADD failed, and then DEL: kubelet finds the pod in the list, stops it and makes another attempt.
    const named = (await berth.call("ListPodSandbox")).items.filter(
      ({ metadata }) => metadata?.uid === config.metadata?.uid,
    );
    expect(named.map(({ state }) => state)).toEqual(["SANDBOX_NOTREADY"]);
    await berth.removePod(named[0]?.id ?? "");
    await berth.removePod((await berth.call("RunPodSandbox", { config })).podSandboxId);
  });

  test("that a killed daemon has left at work is ended before the pod is undone", async () => {
    const before = await berth.findTraces();
    await ipam.become("late"); // the plugin that waits for it is in the pod's network already
    const config = podConfig(berth.workspace, "network-late");
    const caller = berth.call("RunPodSandbox", { config }).catch(() => undefined);
    await waitUntil("the plugin at work", async () => (await ipam.pids()).length > 0 || undefined);
    await berth.daemon.stop("SIGKILL");
    await caller;
    await ipam.become("well");
    await berth.daemon.start();
    await new Promise((resolve) => setTimeout(resolve, 4_000)); // it would be done by then, and nobody would know
    await berth.expectNothingNew(before);
    await berth.removePod((await berth.call("RunPodSandbox", { config })).podSandboxId);
  });

  test("that fails at DEL leaves a pod that a later stop can finish", async () => {
    const pod = await berth.runPod();
    await plugin.become("die");
    await expect(berth.call("StopPodSandbox", { podSandboxId: pod.id })).rejects.toThrow(/plugin.*bridge/u);
    await expect(berth.call("RemovePodSandbox", { podSandboxId: pod.id })).rejects.toThrow(/plugin.*bridge/u);
    expect((await berth.call("PodSandboxStatus", { podSandboxId: pod.id })).status?.state).toBe("SANDBOX_NOTREADY");
    await plugin.become("well");
    await berth.removePod(pod.id);
  });
});
