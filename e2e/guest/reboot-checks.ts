import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import type { cri } from "../../cri-api/index.ts";
import type { CriClient } from "../harness/cri-client.ts";
import { createReport, type Report } from "../harness/report.ts";
import { runCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import { connectToNode, image, patienceMs } from "./checks/node.ts";
import {
  checkRemoval,
  checkStore,
  checkTold,
  layersDirectory,
  readBootId,
  runContainer,
  runPod,
  type Told,
  writeDurably,
} from "./checks/reboot.ts";
import { cutMarker } from "./machine.ts";
import { largeImage } from "./stand-ins.ts";

/**
 * Inside the guest, once per boot of the same disk: fills the node, looks at it after a shutdown, has its power cut
 * while it pulls and starts ten pods, and looks again.
 */
const directory = "/var/lib/reboot-checks";
const toldFile = path.join(directory, "told.json");
const kubeletFile = path.join(directory, "kubelet-stopped");

/** In the place of kubelet, which still talks to its runtime when the node goes down. */
const kubeletUnit = `[Unit]
After=berth.service
[Service]
ExecStart=/bin/sleep infinity
ExecStop=/bin/sh -c 'crictl version > ${kubeletFile} 2>&1; sync'
`;

async function readTold(): Promise<Told | undefined> {
  const text = await readFile(toldFile, "utf8").catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Told);
}

async function imageIds(client: CriClient): Promise<readonly string[]> {
  return (await client.call("ListImages")).images.map(({ id }) => id);
}

/** First boot: pods with running and with ended containers; then the node shuts down. */
async function fill(client: CriClient, report: Report): Promise<void> {
  await report.check("three pods run, one with a container that has ended", async () => {
    await client.call("PullImage", { image: { image } });
    const one = await runPod(client, "one");
    const pods = [one.id];
    const running = [await runContainer(client, one)];
    for (const name of ["two", "three"]) {
      const pod = await runPod(client, name);
      pods.push(pod.id);
      running.push(await runContainer(client, pod));
    }
    const containerId = await runContainer(client, one, { name: "job", script: "exit 3" });
    const endOf = async (): Promise<cri.ContainerStatus | undefined> => {
      const { status } = await client.call("ContainerStatus", { containerId });
      return status?.state === "CONTAINER_EXITED" ? status : undefined;
    };
    const end = await waitUntil("the job's end", endOf, patienceMs);
    assert.equal(end.exitCode, 3);
    const ended = { [containerId]: { exitCode: 3, finishedAt: String(end.finishedAt) } };
    const told = { pods, running, ended, images: await imageIds(client), bootId: await readBootId() };
    await writeDurably(toldFile, JSON.stringify(told));
  });
  await writeFile("/etc/systemd/system/kubelet.service", kubeletUnit);
  await runCommand(["systemctl", "daemon-reload"]);
  await runCommand(["systemctl", "start", "kubelet.service"]);
}

/** Second boot: all is as a shutdown leaves it. */
async function afterShutdown(client: CriClient, told: Told, report: Report): Promise<void> {
  await checkTold(client, told, report);
  await report.check("at shutdown Berth answered until kubelet had stopped", async () => {
    assert.match(await readFile(kubeletFile, "utf8"), /RuntimeName: +berth/u);
  });
  await checkRemoval(client, report);
  await report.check("the node works: a pod runs", async () => {
    await runContainer(client, await runPod(client, "again"));
  });
}

/** Begins a pull and ten pods, and has the power cut once some of them were answered. */
async function waitForPowerCut(client: CriClient): Promise<never> {
  const told = { running: [], ended: {}, images: await imageIds(client), bootId: await readBootId() };
  const pods = (await client.call("ListPodSandbox")).items.map(({ id }) => id);
  const before = (await readdir(layersDirectory)).length;
  let isPulled = false;
  client.call("PullImage", { image: { image: largeImage } }).then(
    () => (isPulled = true),
    () => undefined,
  );
  const isOnItsWay = async (): Promise<true | undefined> =>
    (await readdir(layersDirectory)).length > before ? true : undefined;
  await waitUntil("a layer on its way", isOnItsWay, patienceMs);
  let written = Promise.resolve();
  const starts = Array.from({ length: 10 }, async (_, index) => {
    const { id } = await runPod(client, `cut-${index}`);
    pods.push(id);
    await (written = written.then(() => writeDurably(toldFile, JSON.stringify({ ...told, pods }))));
  });
  for (const start of starts) start.catch(() => undefined);
  await Promise.any(starts);
  if (isPulled) throw new Error("the pull was over before its power could be cut; the image is too small");
  console.log(`${pods.length - 1} of ten pods are ready, the image is on its way`);
  console.log(cutMarker);
  for (;;) await new Promise((resolve) => setTimeout(resolve, 60_000));
}

/** Third boot: the same after the cut. */
async function afterCut(client: CriClient, told: Told, report: Report): Promise<void> {
  await checkTold(client, told, report);
  await checkRemoval(client, report);
  await report.check("the image whose pull was cut can be pulled, and runs", async () => {
    const { imageRef } = await client.call("PullImage", { image: { image: largeImage } });
    assert.ok((await imageIds(client)).includes(imageRef));
    await runContainer(client, await runPod(client, "cut-0"), { from: largeImage });
  });
  await checkRemoval(client, report);
  await checkStore(client, report);
}

async function main(): Promise<void> {
  const report = createReport();
  await mkdir(directory, { recursive: true });
  using client = connectToNode();
  const told = await readTold();
  if (told === undefined) await fill(client, report);
  else if (told.running.length > 0) await afterShutdown(client, told, report);
  else await afterCut(client, told, report);
  if (!report.conclude("guest reboot checks")) process.exitCode = 1;
  else if (told !== undefined && told.running.length > 0) await waitForPowerCut(client);
}

await main();
