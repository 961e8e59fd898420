import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { type Daemon, startDaemon } from "./harness/daemon.ts";
import { findTraces, waitForNoLeaks } from "./harness/leaks.ts";
import { isOfNode, removeNodeNetwork } from "./harness/network.ts";
import { startRegistry } from "./harness/registry.ts";
import { pushWebImage, testImages, webPage } from "./harness/test-images.ts";
import { waitUntil } from "./harness/wait-until.ts";
import { createWorkspace, type Workspace } from "./harness/workspace.ts";

const hostPort = 18080;
const containerPort = 8080;
const times: { stage: string; ms: number }[] = [];

/** Runs one stage of the demonstration, says so, and remembers how long it took. */
async function stage<T>(name: string, work: () => Promise<T>): Promise<T> {
  const startedAt = performance.now();
  const result = await work();
  const ms = performance.now() - startedAt;
  times.push({ stage: name, ms });
  console.log(`✓ ${name} (${ms.toFixed(0)} ms)`);
  return result;
}

async function fetchPage(address: string): Promise<string> {
  const page = await waitUntil(`a page at ${address}`, async () => {
    const response = await fetch(`http://${address}/`, { headers: { connection: "close" } });
    return response.ok ? response.text() : undefined;
  });
  if (page !== webPage) throw new Error(`${address} served something else: ${page}`);
  console.log(`  http://${address}/ → ${page.trim()}`);
  return page;
}

async function runPod(daemon: Daemon, image: string): Promise<string> {
  const { client, workspace } = daemon;
  const pod = podConfig(workspace, "web", {
    portMappings: [{ protocol: "TCP", containerPort, hostPort }],
  });
  const container = containerConfig("httpd", image);
  await mkdir(path.join(workspace.logs, "web"), { recursive: true });
  const { podSandboxId } = await stage("RunPodSandbox", () => client.call("RunPodSandbox", { config: pod }));
  const { containerId } = await stage("CreateContainer", () =>
    client.call("CreateContainer", { podSandboxId, config: container, sandboxConfig: pod }),
  );
  await stage("StartContainer", () => client.call("StartContainer", { containerId }));
  const { status } = await client.call("PodSandboxStatus", { podSandboxId });
  const ip = status?.network?.ip ?? "";
  await stage("page at the pod's address", () => fetchPage(`${ip}:${containerPort}`));
  await stage("page through the host port", () => fetchPage(`127.0.0.1:${hostPort}`));
  const exec = await stage("ExecSync", () =>
    client.call("ExecSync", { containerId, cmd: ["sh", "-c", "id -un; hostname; ls -d /proc/[0-9]* | wc -l"] }),
  );
  console.log(`  id -un; hostname; number of processes → ${exec.stdout.toString().trim().replaceAll("\n", ", ")}`);
  const logPath = path.join(workspace.logs, "web/httpd.log");
  const log = await stage("container log", () =>
    waitUntil("a line in the log", async () => (await readFile(logPath, "utf8")) || undefined),
  );
  console.log(log.trimEnd().replaceAll(/^/gmu, "  "));
  await stage("StopContainer", () => client.call("StopContainer", { containerId, timeout: 10n }));
  await stage("RemoveContainer", () => client.call("RemoveContainer", { containerId }));
  await stage("StopPodSandbox", () => client.call("StopPodSandbox", { podSandboxId }));
  await stage("RemovePodSandbox", () => client.call("RemovePodSandbox", { podSandboxId }));
  return podSandboxId;
}

async function demonstrate(workspace: Workspace): Promise<readonly string[]> {
  const images = path.join(workspace.directory, "images");
  await using registry = await stage("start a registry", () =>
    startRegistry(path.join(workspace.directory, "registry")),
  );
  await stage("build and push an image (umoci, skopeo)", () => pushWebImage(images, registry.address));
  const nothing = await findTraces({ workspace, ids: new Set() });
  const seenIds = new Set<string>();
  {
    await using daemon = await stage("start Berth", () => startDaemon(workspace, { registries: [registry.address] }));
    const { client } = daemon;
    const version = await client.call("Version");
    console.log(`  ${version.runtimeName} ${version.runtimeVersion}, CRI ${version.runtimeApiVersion}`);
    const empty = await findTraces({ workspace, ids: new Set() });
    const image = `${registry.address}/${testImages.web}`;
    const pulled = await stage("PullImage over HTTP", () => client.call("PullImage", { image: { image } }));
    await runPod(daemon, image);
    await stage("RemoveImage", () => client.call("RemoveImage", { image: { image: pulled.imageRef } }));
    for (const id of client.seenIds) seenIds.add(id);
    // The bridge and portmap's base chains belong to the node, not to a pod: the plugins keep them by design.
    const isExpected = (line: string): boolean => isOfNode(workspace, line);
    const left = await stage("look for what the pod left", () =>
      waitForNoLeaks(empty, { workspace, ids: seenIds }, { isExpected }),
    );
    if (left.length > 0) return left;
  }
  await removeNodeNetwork(workspace);
  // The daemon's own folders, empty of pods and images as was just shown, go with the workspace.
  const isExpected = (line: string): boolean => line.startsWith("files: ");
  return waitForNoLeaks(nothing, { workspace, ids: seenIds }, { isExpected });
}

function printTimes(): void {
  const total = times.reduce((sum, { ms }) => sum + ms, 0);
  const rows = [...times, { stage: "total", ms: total }];
  const width = Math.max(...rows.map(({ stage }) => stage.length));
  console.log(`\n${"stage".padEnd(width)}       ms     %`);
  for (const { stage, ms } of rows) {
    console.log(`${stage.padEnd(width)} ${ms.toFixed(1).padStart(8)} ${((100 * ms) / total).toFixed(1).padStart(5)}`);
  }
}

async function main(): Promise<void> {
  let left: readonly string[];
  {
    await using workspace = await createWorkspace();
    try {
      left = await demonstrate(workspace);
    } catch (thrown) {
      const log = await readFile(path.join(workspace.logs, "daemon.log"), "utf8").catch(() => "");
      console.error(`\nthe daemon's log ends with:\n${log.split("\n").slice(-40).join("\n")}`);
      throw thrown;
    }
  }
  printTimes();
  if (left.length > 0) throw new Error(`something was left behind:\n${left.join("\n")}`);
  console.log("\nNothing is left: no mount, namespace, cgroup, process, link, firewall rule, address lease or file.");
}

await main();
