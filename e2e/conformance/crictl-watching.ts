import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { at, listAt } from "../harness/json-path.ts";
import { runCommand, tryCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import type { CrictlScene } from "./crictl-streams.ts";

const timeoutMs = 20_000;

/** What crictl follows, measures and sets, on a pod with a running container. */
export async function exerciseWatching(scene: CrictlScene): Promise<void> {
  await checkRun(scene);
  await checkLogs(scene);
  await checkMeasures(scene);
  await checkSettings(scene);
}

/** A pod and its container in one command, while somebody listens to the events. */
async function checkRun({ argv, check, directory, image }: CrictlScene): Promise<void> {
  const [podFile, containerFile] = [path.join(directory, "run-pod.json"), path.join(directory, "run-container.json")];
  const podConfig: unknown = JSON.parse(await readFile(path.join(directory, "pod.json"), "utf8"));
  const metadata = { name: "ran", namespace: "e2e", uid: `ran-${path.basename(directory)}`, attempt: 1 };
  await writeFile(podFile, JSON.stringify({ ...Object(podConfig), metadata }));
  const command = ["sh", "-c", "echo said at once"];
  const config = { metadata: { name: "ran" }, image: { image }, command, log_path: "ran.log" };
  await writeFile(containerFile, JSON.stringify(config));

  let container = "";
  await using listener = listen(argv("events"));
  await check("run", async () => {
    container = await runCommand(argv("run", containerFile, podFile));
    assert.match(container, /^[0-9a-f]{64}$/u);
    await waitUntil("what the container said", async () =>
      (await runCommand(argv("logs", container))).includes("said at once") ? true : undefined,
    );
  });
  await check("events", async () => {
    const kinds = await waitUntil("the events of one life", async () => {
      const seen = eventsOf(listener.output(), container);
      return seen.length >= 3 ? seen : undefined;
    });
    assert.deepEqual(kinds, ["CONTAINER_CREATED_EVENT", "CONTAINER_STARTED_EVENT", "CONTAINER_STOPPED_EVENT"]);
  });
  const pod = String(at(JSON.parse(await runCommand(argv("inspect", container))), "info", "sandboxID"));
  await runCommand(argv("rmp", "-f", pod));
}

/** crictl prints one JSON object after the other. */
function eventsOf(output: string, container: string): readonly unknown[] {
  const objects = output.split(/^(?=\{)/mu).flatMap((text): readonly unknown[] => {
    try {
      return [JSON.parse(text)];
    } catch {
      return []; // the last one may still be on its way
    }
  });
  return objects.flatMap((event) => (at(event, "containerId") === container ? [at(event, "containerEventType")] : []));
}

/** A command that goes on until it is ended, and what it has printed so far. */
function listen(argv: readonly string[]): AsyncDisposable & { output(): string } {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "ignore"], timeout: timeoutMs, killSignal: "SIGKILL" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  return {
    output: () => text,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function checkLogs({ argv, check, directory, image, pod, podFile }: CrictlScene): Promise<void> {
  const file = path.join(directory, "talking.json");
  const command = ["sh", "-c", "for word in one two three; do echo $word; sleep 0.5; done; echo last >&2"];
  const config = { metadata: { name: "talking" }, image: { image }, command, log_path: "talking.log" };
  await writeFile(file, JSON.stringify(config));
  const id = await runCommand(argv("create", pod, file, podFile));
  await runCommand(argv("start", id));
  await check("logs -f", async () => {
    const { stdout, stderr, exitCode } = await tryCommand(argv("logs", "-f", id), { timeoutMs });
    assert.deepEqual([stdout, exitCode], ["one\ntwo\nthree\n", 0], stderr);
    assert.match(stderr, /^last$/mu);
  });
  await check("logs --tail", async () => {
    assert.equal(await runCommand(argv("logs", "--tail", "2", id)), "three");
  });
  await runCommand(argv("rm", id));
}

async function checkMeasures({ argv, check, pod, container }: CrictlScene): Promise<void> {
  const read = async (...args: readonly string[]): Promise<unknown> => JSON.parse(await runCommand(argv(...args)));
  await check("logs --reopen", async () => {
    const file = String(at(await read("inspect", container), "status", "logPath"));
    await rename(file, `${file}.1`);
    await runCommand(argv("logs", "--reopen", container));
    assert.ok((await stat(file)).isFile());
  });
  await check("statsp", async () => {
    const [stats] = listAt(await read("statsp", "--id", pod, "-o", "json"), "stats");
    assert.equal(at(stats, "attributes", "id"), pod);
    assert.ok(Number(at(stats, "linux", "memory", "workingSetBytes", "value")) > 0, "memory");
    assert.ok(Number(at(stats, "linux", "process", "processCount", "value")) > 0, "processes");
    assert.equal(at(stats, "linux", "network", "defaultInterface", "name"), "eth0");
  });
  const described = new Map<unknown, unknown>();
  await check("metricdescs", async () => {
    for (const each of listAt(await read("metricdescs"), "descriptors")) {
      described.set(at(each, "name"), at(each, "labelKeys"));
    }
    assert.ok(described.has("container_memory_working_set_bytes"), [...described.keys()].join());
  });
  await check("metricsp", async () => {
    const pods = listAt(await read("metricsp"), "podMetrics");
    const found = pods.find((each) => at(each, "podSandboxId") === pod);
    const [own] = listAt(found, "containerMetrics").filter((each) => at(each, "containerId") === container);
    const metrics = [...listAt(found, "metrics"), ...listAt(own, "metrics")];
    assert.ok(metrics.length > 20, `${metrics.length} metrics`);
    for (const metric of metrics)
      assert.ok(described.has(at(metric, "name")), `${String(at(metric, "name"))} is described`);
  });
}

async function checkSettings({ argv, check, directory }: CrictlScene): Promise<void> {
  await check("runtime-config", async () => {
    assert.match(await runCommand(argv("runtime-config")), /^cgroup driver:\s*CGROUPFS$/imu);
  });
  await check("update-runtime-config", async () => {
    await runCommand(argv("update-runtime-config", "--pod-cidr", "10.99.0.0/24"));
  });
  await check("config", async () => {
    const file = path.join(directory, "crictl.yaml");
    const config = (...args: readonly string[]): Promise<string> =>
      runCommand(argv("--config", file, "config", ...args));
    await writeFile(file, "");
    await config("--set", "timeout=7");
    assert.equal(await config("--get", "timeout"), "7");
    assert.match(await config("--list"), /timeout\s+7/u);
  });
  await check("completion", async () => {
    for (const shell of ["bash", "zsh", "fish"]) assert.match(await runCommand(argv("completion", shell)), /crictl/u);
  });
}
