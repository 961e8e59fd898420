import { readdir, readFile, unlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import type { cri } from "../cri-api/index.ts";
import { useDaemon } from "./harness/fixture.ts";
import { connectCommand, exitCodeOf, readText } from "./harness/stream-client.ts";
import { waitUntil } from "./harness/wait-until.ts";

const berth = useDaemon();

async function killAndStart(): Promise<void> {
  await berth.daemon.stop("SIGKILL");
  await berth.daemon.start();
}

async function listRunning(): Promise<readonly cri.Container[]> {
  const filter = { state: { state: "CONTAINER_RUNNING" } } as const;
  const { containers } = await berth.call("ListContainers", { filter });
  return containers.toSorted((a, b) => a.id.localeCompare(b.id));
}

test("a log has no gap and no doubled line across kills, also with somebody attached", async () => {
  const pod = await berth.runPod();
  const count = 30_000;
  const script = `i=0; while [ $i -lt ${count} ]; do echo $i; i=$((i+1)); [ $((i % 500)) -ne 0 ] || sleep 0.05; done`;
  const containerId = await berth.startContainer(pod, { command: ["sh", "-c", script] });
  const wanted = { stdout: true };
  const { url } = await berth.call("Attach", { containerId, ...wanted });
  const client = await connectCommand("SPDY", url, wanted);
  client.status.catch(() => undefined); // it breaks off with the daemon
  client.stdout.on("error", () => undefined).resume();
  await berth.waitForLog(containerId, "1000");
  await killAndStart();
  await killAndStart();
  const { logPath } = await berth.containerStatus(containerId);
  await waitUntil(
    "the container's end",
    async () => {
      const { state } = await berth.containerStatus(containerId);
      return state === "CONTAINER_EXITED" ? true : undefined;
    },
    120_000,
  );
  const lines = (await readFile(logPath, "utf8")).trimEnd().split("\n");
  expect(lines.map((line) => line.split(" ").slice(1).join(" "))).toEqual(
    Array.from({ length: count }, (_, index) => `stdout F ${index}`),
  );
});

test.each(["SPDY", "WebSocket"] as const)("exec and attach over %s work after a restart", async (transport) => {
  const pod = await berth.runPod();
  const command = ["sh", "-c", "echo ready; while read -r line; do echo got $line; done"];
  const containerId = await berth.startContainer(pod, { command, stdin: true });
  await berth.waitForLog(containerId, "ready");
  await killAndStart();

  const output = { stdout: true };
  const { url } = await berth.call("Exec", { containerId, cmd: ["sh", "-c", "echo out; exit 3"], ...output });
  const exec = await connectCommand(transport, url, output);
  expect(await readText(exec.stdout)).toBe("out\n");
  expect(exitCodeOf(await exec.status)).toBe(3);

  const both = { stdin: true, stdout: true };
  const attach = await connectCommand(transport, (await berth.call("Attach", { containerId, ...both })).url, both);
  attach.status.catch(() => undefined);
  await attach.write("a line\n");
  expect(await berth.waitForLog(containerId, "got a line")).toContain("stdout got a line");
  attach.destroy();
});

test("100 running containers are taken up again in under a second, each by its own process", async () => {
  const pods = await Promise.all(Array.from({ length: 10 }, () => berth.runPod()));
  const ids = await Promise.all(
    pods.flatMap((pod) => Array.from({ length: 10 }, () => berth.startContainer(pod, { command: ["sleep", "1000"] }))),
  );
  const before = await listRunning();
  expect(before).toHaveLength(ids.length);
  await killAndStart();
  expect(await listRunning()).toEqual(before);
  const told = (await berth.daemon.readLog()).matchAll(/"elapsedMs":(\d+),"msg":"took up/gu);
  const elapsedMs = Number([...told].at(-1)?.[1]);
  console.log(`100 containers in 10 pods taken up in ${elapsedMs} ms`);
  expect(elapsedMs).toBeLessThan(1_000);
}, 240_000);

describe("state on disk", () => {
  const recordsOf = (kind: string): string => path.join(berth.workspace.root, kind);

  test.each([
    ["of a pod", (podId: string) => path.join(recordsOf("pod-sandboxes"), `${podId}.json`)],
    [
      "of a running process",
      (_: string, id: string) => path.join(berth.workspace.state, "runtimes/crun/state/containers", `${id}.json`),
    ],
  ])("%s of a newer Berth is refused with a clear message, and left as it is", async (_, fileOf) => {
    const pod = await berth.runPod();
    const containerId = await berth.startContainer(pod);
    const file = fileOf(pod.id, containerId);
    const text = await readFile(file, "utf8");
    const newer = text.replace(/"schemaVersion":\d+/u, '"schemaVersion":99');
    await berth.daemon.stop("SIGKILL");
    await writeFile(file, newer);
    await expect(berth.daemon.start()).rejects.toThrow(/state of schema 99 was written by a newer Berth/u);
    expect(await readFile(file, "utf8")).toBe(newer);
    await writeFile(file, text);
    await berth.daemon.start();
    const { status } = await berth.call("PodSandboxStatus", { podSandboxId: pod.id });
    expect(status).toMatchObject({ state: "SANDBOX_READY" });
    expect(await berth.shell(containerId, "echo still here")).toBe("still here");
  });

  test("that is half written is put aside; what it told of is taken down, and the rest is served", async () => {
    const before = await berth.findTraces();
    const broken = await berth.runPod();
    const whole = await berth.runPod();
    const containerId = await berth.startContainer(whole);
    const file = path.join(recordsOf("pod-sandboxes"), `${broken.id}.json`);
    const text = await readFile(file, "utf8");
    await berth.daemon.stop("SIGKILL");
    await writeFile(file, text.slice(0, text.length / 2));
    await berth.daemon.start();
    const { items } = await berth.call("ListPodSandbox");
    expect(items.map(({ id }) => id)).toEqual([whole.id]);
    expect(await berth.shell(containerId, "echo served")).toBe("served");
    const set = (await readdir(recordsOf("pod-sandboxes"))).filter((name) => name.endsWith(".corrupt"));
    expect(set).toEqual([`${broken.id}.json.corrupt`]);
    expect(await berth.daemon.readLog()).toContain("unreadable pod sandbox record put aside");

    await berth.removePod(whole.id);
    await unlink(`${file}.corrupt`);
    await berth.expectNothingNew(before);
  });
});
