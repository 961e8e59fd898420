import { rename } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { useDaemon } from "./harness/fixture.ts";
import { webPage } from "./harness/test-images.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon({ pull: ["busybox", "web", "configured"] });

describe.each(["crun", "runc"])("with %s", (runtimeHandler) => {
  test("a pod goes from ready to not ready to gone", async () => {
    const pod = await berth.runPod({ runtimeHandler, config: { labels: { a: "b" }, annotations: { "x/y": "ä\n" } } });
    const podSandboxId = pod.id;

    const { status } = await berth.call("PodSandboxStatus", { podSandboxId });
    expect(status).toMatchObject({
      id: podSandboxId,
      metadata: pod.config.metadata,
      state: "SANDBOX_READY",
      labels: { a: "b" },
      annotations: { "x/y": "ä\n" },
      runtimeHandler,
    });
    expect(status?.network?.ip).toMatch(/^10\.88\./u);
    expect(status?.createdAt).toBeGreaterThan(0n);
    const { items } = await berth.call("ListPodSandbox", { filter: { id: podSandboxId.slice(0, 13) } });
    expect(items).toHaveLength(1);
    expect(items[0]).toMatchObject({ id: podSandboxId, state: "SANDBOX_READY", runtimeHandler });

    await berth.call("StopPodSandbox", { podSandboxId });
    const stopped = await berth.call("PodSandboxStatus", { podSandboxId });
    expect(stopped.status?.state).toBe("SANDBOX_NOTREADY");

    await berth.call("RemovePodSandbox", { podSandboxId });
    expect((await berth.call("ListPodSandbox", { filter: { id: podSandboxId } })).items).toEqual([]);
  });

  test("a container goes from created to running to exited to gone", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const image = await berth.call("ImageStatus", { image: { image: berth.image("busybox") } });
    const command = ["sh", "-c", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"];
    const containerId = await berth.createContainer(pod, { command, labels: { l: "1" }, annotations: { n: "2" } });
    const created = await berth.containerStatus(containerId);
    expect(created).toMatchObject({
      state: "CONTAINER_CREATED",
      startedAt: 0n,
      labels: { l: "1" },
      annotations: { n: "2" },
    });
    expect(created.imageId).toBe(image.image?.id);

    await berth.call("StartContainer", { containerId });
    const running = await berth.containerStatus(containerId);
    expect(running).toMatchObject({ state: "CONTAINER_RUNNING", finishedAt: 0n, exitCode: 0 });
    expect(running.startedAt).toBeGreaterThanOrEqual(running.createdAt);

    await berth.waitForLog(containerId, "ready"); // the signal finds its handler
    await berth.call("StopContainer", { containerId, timeout: 10n });
    const exited = await berth.containerStatus(containerId);
    expect(exited).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 0, reason: "Completed" });
    expect(exited.finishedAt).toBeGreaterThanOrEqual(exited.startedAt);

    await berth.call("RemoveContainer", { containerId });
    expect((await berth.call("ListContainers", { filter: { id: containerId } })).containers).toEqual([]);
  });

  test("StopContainer kills what ignores the stop signal once its time is over", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"];
    const containerId = await berth.startContainer(pod, { command });
    await berth.waitForLog(containerId, "ready");
    const startedAt = Date.now();
    await berth.call("StopContainer", { containerId, timeout: 1n });
    expect(Date.now() - startedAt).toBeGreaterThan(900);
    expect(await berth.containerStatus(containerId)).toMatchObject({ state: "CONTAINER_EXITED", exitCode: 137 });
  });

  test("exit codes and both output streams are kept", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const { status, log } = await berth.runToEnd(pod, [
      "sh",
      "-c",
      "echo out; echo err >&2; printf unfinished; exit 42",
    ]);
    expect(status).toMatchObject({ exitCode: 42, reason: "Error" });
    expect(log.toSorted()).toEqual(["stderr err", "stdout out", "stdout unfinished"]);
  });

  test("the image's entrypoint, arguments, environment, directory, user and stop signal are used", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const image = { image: berth.image("configured") };
    const containerId = await berth.startContainer(pod, { image });
    await berth.waitForLog(containerId, "stdout entry one two");
    expect(await berth.shell(containerId, "pwd; id -un; echo $COLOUR")).toBe("/home/web/work\nweb\nblue");
    await berth.call("StopContainer", { containerId, timeout: 20n });
    expect(await berth.containerStatus(containerId)).toMatchObject({ exitCode: 7 });
    expect(await berth.readLog(containerId)).toContain("stdout got USR1");
  });

  test("a container's own stop signal wins over the image's, and is told", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const image = { image: berth.image("configured") };
    const command = [
      "sh",
      "-c",
      "trap 'echo got USR1' USR1; trap 'exit 9' USR2; echo ready; while :; do sleep 0.1; done",
    ];
    const containerId = await berth.startContainer(pod, { image, command, stopSignal: "SIGNAL_SIGUSR2" });
    await berth.waitForLog(containerId, "ready");
    expect((await berth.containerStatus(containerId)).stopSignal).toBe("SIGNAL_SIGUSR2");
    await berth.call("StopContainer", { containerId, timeout: 20n });
    expect(await berth.containerStatus(containerId)).toMatchObject({ exitCode: 9 });
    expect(await berth.readLog(containerId)).toEqual(["stdout ready"]);
  });

  test("a container's own command, arguments, environment and directory win over the image's", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const image = { image: berth.image("configured") };
    const onlyArgs = await berth.startContainer(pod, { image, args: ["three"] });
    expect(await berth.waitForLog(onlyArgs, "entry")).toContain("stdout entry three");
    const command = ["sh", "-c", 'pwd; echo "$COLOUR|$ADDED|${EMPTY-unset}|$0"', "zero"];
    const envs = [
      { key: "COLOUR", value: Buffer.from("red") },
      { key: "ADDED", value: Buffer.from("a=b c") },
    ];
    const { log } = await berth.runToEnd(pod, command, { image, envs, workingDir: "/made/on/demand" });
    expect(log).toEqual(["stdout /made/on/demand", "stdout red|a=b c||zero"]);
  });

  test("ExecSync returns output and exit code, and stdin is at its end", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod);
    const cmd = ["sh", "-c", "cat; printf out; printf err >&2; exit 3"];
    const answer = await berth.call("ExecSync", { containerId, cmd });
    expect(answer).toMatchObject({ stdout: Buffer.from("out"), stderr: Buffer.from("err"), exitCode: 3 });
  });

  test("ExecSync ends at its timeout and takes the whole process group with it", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const containerId = await berth.startContainer(pod);
    const cmd = ["sh", "-c", "sleep 4711 & sleep 4711"];
    const before = await berth.findTraces();
    const call = berth.call("ExecSync", { containerId, cmd, timeout: 1n });
    await expect(call).rejects.toMatchObject({ code: 4 });
    await waitUntil("the sleepers' end", async () =>
      (await berth.shell(containerId, "pgrep sleep | wc -l; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).includes("4711")
        ? undefined
        : true,
    );
    await berth.expectNothingNew(before);
  });

  test("ReopenContainerLog writes to a new file after a rotation", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const command = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"];
    const containerId = await berth.startContainer(pod, { command });
    await berth.waitForLog(containerId, "line 1");
    const { logPath } = await berth.containerStatus(containerId);
    await rename(logPath, `${logPath}.1`);
    await berth.call("ReopenContainerLog", { containerId });
    const lines = await berth.waitForLog(containerId, "line");
    expect(lines[0]).not.toBe("stdout line 1");
  });

  test("a web server answers at the pod's address and through a host port", async () => {
    const portMappings = [{ protocol: "TCP" as const, containerPort: 8080, hostPort: 18_081 }];
    const pod = await berth.runPod({ runtimeHandler, config: { portMappings } });
    await berth.startContainer(pod, { image: { image: berth.image("web") } });
    const { status } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
    for (const address of [`${status?.network?.ip}:8080`, "127.0.0.1:18081"]) {
      const page = await waitUntil(`a page at ${address}`, async () =>
        (await fetch(`http://${address}/`, { headers: { connection: "close" } })).text(),
      );
      expect(page).toBe(webPage);
    }
  });

  test("StopPodSandbox ends the containers of the pod, RemovePodSandbox removes them", async () => {
    const pod = await berth.runPod({ runtimeHandler });
    const running = await berth.startContainer(pod);
    const created = await berth.createContainer(pod);
    await berth.call("StopPodSandbox", { podSandboxId: pod.id });
    expect(await berth.containerStatus(running)).toMatchObject({ state: "CONTAINER_EXITED" });
    await berth.call("RemovePodSandbox", { podSandboxId: pod.id });
    const { containers } = await berth.call("ListContainers", { filter: { podSandboxId: pod.id } });
    expect(containers).toEqual([]);
    await expect(berth.call("ContainerStatus", { containerId: created })).rejects.toMatchObject({ code: 5 });
  });

  test("containers of one pod share its network, host name and IPC, and can share processes", async () => {
    const linux = { securityContext: { namespaceOptions: { pid: "POD" as const } } };
    const pod = await berth.runPod({ runtimeHandler, config: { linux } });
    const first = await berth.startContainer(pod, { linux, command: ["sh", "-c", "exec sleep 4712"] });
    const second = await berth.startContainer(pod, { linux });
    const namespaces = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done";
    expect(await berth.shell(first, namespaces)).toBe(await berth.shell(second, namespaces));
    expect(await berth.shell(second, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).toContain("sleep 4712");
    expect(await berth.shell(second, "cat /proc/1/comm")).not.toBe("sh");
    await berth.shell(first, "echo shared > /dev/shm/file");
    expect(await berth.shell(second, "cat /dev/shm/file; hostname")).toBe(`shared\n${pod.config.hostname}`);
  });
});

test("lists can be filtered by id, state, pod and labels", async () => {
  const one = await berth.runPod({ config: { labels: { group: "x", name: "one" } } });
  const two = await berth.runPod({ config: { labels: { group: "x", name: "two" } } });
  await berth.call("StopPodSandbox", { podSandboxId: two.id });
  const pods = async (filter: object): Promise<string[]> =>
    (await berth.call("ListPodSandbox", { filter })).items.map((item) => item.id).toSorted();
  expect(await pods({ labelSelector: { group: "x" } })).toEqual([one.id, two.id].toSorted());
  expect(await pods({ labelSelector: { group: "x", name: "two" } })).toEqual([two.id]);
  expect(await pods({ labelSelector: { group: "x" }, state: { state: "SANDBOX_READY" } })).toEqual([one.id]);
  expect(await pods({ id: "0000000000000" })).toEqual([]);

  const created = await berth.createContainer(one, { labels: { c: "created" } });
  const running = await berth.startContainer(one, { labels: { c: "running" } });
  const containers = async (filter: object): Promise<string[]> =>
    (await berth.call("ListContainers", { filter })).containers.map((container) => container.id).toSorted();
  expect(await containers({ podSandboxId: one.id })).toEqual([created, running].toSorted());
  expect(await containers({ podSandboxId: one.id, state: { state: "CONTAINER_CREATED" } })).toEqual([created]);
  expect(await containers({ labelSelector: { c: "running" } })).toEqual([running]);
  expect(await containers({ id: running })).toEqual([running]);
  expect(await containers({ podSandboxId: two.id })).toEqual([]);
});

test("a list names all that its clients rely on", async () => {
  const pod = await berth.runPod({ runtimeHandler: "runc" });
  const containerId = await berth.startContainer(pod, { metadata: { name: "named", attempt: 3 }, labels: { k: "v" } });
  const { containers } = await berth.call("ListContainers", { filter: { id: containerId } });
  const { image } = await berth.call("ImageStatus", { image: { image: berth.image("busybox") } });
  expect(containers[0]).toMatchObject({
    id: containerId,
    podSandboxId: pod.id,
    metadata: { name: "named", attempt: 3 },
    imageId: image?.id,
    state: "CONTAINER_RUNNING",
    labels: { k: "v" },
  });
  expect(containers[0]?.imageRef).not.toBe("");
  expect(containers[0]?.image?.image).toBe(berth.image("busybox"));
});
