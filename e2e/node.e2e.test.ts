import { lstat, mkdir, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, inject, test } from "vitest";
import { connectClient } from "./harness/cri-client.ts";
import { startDaemon } from "./harness/daemon.ts";
import { useDaemon } from "./harness/fixture.ts";
import { nodeProgram, repository } from "./harness/repository.ts";
import { tryCommand } from "./harness/run-command.ts";
import { waitUntil } from "./harness/wait-until.ts";
import { createWorkspace } from "./harness/workspace.ts";

const berth = useDaemon();

async function conditions(): Promise<Record<string, boolean>> {
  const { status } = await berth.call("Status");
  return Object.fromEntries((status?.conditions ?? []).map(({ type, status }) => [type, status]));
}

describe("what the daemon says of itself", () => {
  test("Version", async () => {
    expect(await berth.call("Version", { version: "v1" })).toMatchObject({
      runtimeName: "berth",
      runtimeApiVersion: "v1",
    });
  });
  test("Status: conditions, a handler per runtime and the default one without a name, features", async () => {
    const answer = await berth.call("Status", { verbose: true });
    expect(await conditions()).toEqual({ RuntimeReady: true, NetworkReady: true, RegistriesReady: true });
    expect(answer.runtimeHandlers.map((handler) => handler.name).toSorted()).toEqual(["", "crun", "runc"]);
    expect(answer.features?.supplementalGroupsPolicy).toBe(true);
    expect(JSON.parse(answer.info["config"] ?? "")).toBeTypeOf("object");
    expect((await berth.call("Status")).info).toEqual({});
  });
  test("RuntimeConfig tells the cgroup driver", async () => {
    expect((await berth.call("RuntimeConfig")).linux?.cgroupDriver).toBe("CGROUPFS");
  });
  test("UpdateRuntimeConfig takes a pod CIDR", async () => {
    await berth.call("UpdateRuntimeConfig", { runtimeConfig: { networkConfig: { podCidr: "10.1.0.0/16" } } });
  });
});

test("NetworkReady follows the network's configuration file", async () => {
  const file = path.join(berth.workspace.cniConfDir, "10-berth.conflist");
  await rename(file, `${file}.away`);
  await waitUntil("the network to be not ready", async () => ((await conditions())["NetworkReady"] ? undefined : true));
  const { status } = await berth.call("Status");
  const network = status?.conditions.find((condition) => condition.type === "NetworkReady");
  expect(network).toMatchObject({ status: false, reason: "NetworkPluginNotReady" });
  await rename(`${file}.away`, file);
  await waitUntil("the network to be ready", async () => (await conditions())["NetworkReady"] || undefined);
});

describe("the socket", () => {
  test("is for root and its group, in a folder that others cannot list", async () => {
    const socket = await stat(berth.daemon.socketPath);
    expect((socket.mode & 0o777).toString(8)).toBe("660");
    expect([socket.uid, socket.gid]).toEqual([0, 0]);
    const folder = await lstat(path.dirname(berth.daemon.socketPath));
    expect((folder.mode & 0o777).toString(8)).toBe("711");
  });
  test("takes a message of 16 MiB and gives a clear error for what is too large", async () => {
    const labels = { big: "x".repeat(15 << 20) };
    const { items } = await berth.call("ListPodSandbox", { filter: { labelSelector: labels } });
    expect(items).toEqual([]);
    const version = "x".repeat(60 << 20);
    await expect(berth.call("Version", { version })).rejects.toMatchObject({ code: 8 });
  });
  test("serves many callers at once", async () => {
    const clients = Array.from({ length: 20 }, () => connectClient(berth.daemon.socketPath));
    const answers = await Promise.all(clients.map((client) => client.call("Version")));
    expect(answers).toHaveLength(20);
    for (const client of clients) client[Symbol.dispose]();
  });
});

describe("at start", () => {
  const serve = (configFile: string): ReturnType<typeof tryCommand> =>
    tryCommand([nodeProgram, path.join(repository, "server/main.ts"), "serve", "--config", configFile], {
      timeoutMs: 20_000,
    });

  test("a second daemon on a live socket is an error, and the first goes on", async () => {
    const { exitCode, stderr } = await serve(path.join(berth.workspace.directory, "berth.toml"));
    expect(exitCode).toBeGreaterThan(0);
    expect(stderr).toContain(berth.daemon.socketPath);
    await berth.call("Version");
  });
  test("a dead socket file is replaced", async () => {
    await using workspace = await createWorkspace();
    await mkdir(workspace.state, { recursive: true, mode: 0o711 });
    const socketPath = path.join(workspace.state, "berth.sock");
    const script = `require("net").createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, "SIGKILL"))`;
    await tryCommand([nodeProgram, "-e", script]);
    expect((await lstat(socketPath)).isSocket()).toBe(true);
    await using daemon = await startDaemon(workspace, { registries: [inject("registry")] });
    await daemon.client.call("Version");
  });
  test("everything wrong in the configuration is told at once, with its place", async () => {
    await using workspace = await createWorkspace();
    const file = path.join(workspace.directory, "bad.toml");
    await writeFile(file, 'root = 5\nunknown = 1\ncgroup_driver = "other"\n[cni]\nnonsense = true\n');
    const { exitCode, stderr, stdout } = await serve(file);
    expect(exitCode).toBeGreaterThan(0);
    for (const place of ["root", "unknown", "cgroup_driver", "cni.nonsense"]) expect(stderr + stdout).toContain(place);
    expect(stderr + stdout).not.toMatch(/\n\s+at /u);
  });
});

test("a container gets neither descriptors nor environment of the daemon", async () => {
  const pod = await berth.runPod();
  const containerId = await berth.startContainer(pod, { command: ["sh", "-c", "echo ready; sleep 1000"] });
  await berth.waitForLog(containerId, "ready"); // until then it may still be the runtime
  const descriptors = await berth.shell(containerId, "ls -l /proc/1/fd | wc -l");
  expect(Number(descriptors)).toBeLessThanOrEqual(5);
  expect(
    await berth.shell(containerId, "tr '\\0' '\\n' < /proc/1/environ | cut -d = -f 1 | sort | tr '\\n' ' '"),
  ).not.toMatch(/TMPDIR|NODE|LISTEN/u);
});

test("SIGTERM with a call in flight lets it end within the grace time", async () => {
  const containerId = await berth.startContainer(await berth.runPod());
  const call = berth.call("ExecSync", { containerId, cmd: ["sh", "-c", "touch /begun; sleep 2; echo done"] });
  await waitUntil("the command", () => berth.shell(containerId, "ls /begun"));
  expect(await berth.daemon.stop("SIGTERM")).toBe(0);
  expect((await call).stdout.toString()).toBe("done\n");
  await berth.daemon.start();
});
