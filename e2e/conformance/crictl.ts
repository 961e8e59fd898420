import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Daemon } from "../harness/daemon.ts";
import type { Report } from "../harness/report.ts";
import { at, listAt } from "../harness/json-path.ts";
import { repository } from "../harness/repository.ts";
import { runCommand } from "../harness/run-command.ts";
import { waitUntil } from "../harness/wait-until.ts";
import { exerciseStreams } from "./crictl-streams.ts";
import { exerciseWatching } from "./crictl-watching.ts";

interface CrictlSession {
  readonly crictl: string;
  readonly daemon: Daemon;
  readonly runtimeHandler: string;
  readonly image: string;
}

/** Drives every subcommand that operators use, in the order of a pod's life, and looks at what each one prints. */
export async function exerciseCrictl(session: CrictlSession, report: Report): Promise<void> {
  const { daemon, runtimeHandler } = session;
  const endpoint = `unix://${daemon.socketPath}`;
  const endpoints = ["--runtime-endpoint", endpoint, "--image-endpoint", endpoint];
  const argv = (...args: readonly string[]): readonly string[] => [
    session.crictl,
    ...endpoints,
    "--timeout",
    "30s",
    ...args,
  ];
  const run = (...args: readonly string[]): Promise<string> => runCommand(argv(...args));
  const read = async (...args: readonly string[]): Promise<unknown> => JSON.parse(await run(...args));
  const checked: string[] = [];
  const check = (command: string, work: () => Promise<void>): Promise<boolean> => {
    checked.push(command);
    return report.check(`crictl ${command} [${runtimeHandler}]`, work);
  };
  const files = await writeConfigs(session);

  await checkNode({ run, read, check });
  const imageId = await checkImage({ run, read, check }, session.image);
  const pod = await checkPod({ run, read, check }, runtimeHandler, files.pod);
  const container = await checkContainer({ run, read, check }, { pod, imageId, files, logs: files.logs });
  const scene = { argv, check, pod, podFile: files.pod, container, image: session.image, directory: files.logs };
  await exerciseStreams(scene);
  await exerciseWatching(scene);
  await checkContainerEnd({ run, read, check }, container);
  await checkRemoval({ run, read, check }, pod, session.image);
  await check("--help", () => checkTable(run, checked));
}

/** Restoring is not built, and help helps itself. */
const unchecked: readonly string[] = ["checkpoint", "help"];

/** Every sub-command that crictl has was checked above, and stands in the table that says so. */
async function checkTable(run: Tool["run"], checked: readonly string[]): Promise<void> {
  const [, help = ""] = /^COMMANDS:$([\s\S]*?)^$/mu.exec(await run("--help")) ?? [];
  const commands = [...help.matchAll(/^ {3}([a-z-]+)/gmu)].map(([, name = ""]) => name);
  const wanted = commands.filter((name) => !unchecked.includes(name));
  assert.ok(wanted.length >= 30, help);
  const table = await readFile(path.join(repository, "e2e/README.md"), "utf8");
  const isChecked = (name: string): boolean => checked.some((check) => check.split(" ")[0] === name);
  const isTold = (name: string): boolean =>
    checked.some((check) => check.split(" ")[0] === name && table.includes(`\`${check}\``));
  assert.deepEqual(
    wanted.filter((name) => !isChecked(name) || !isTold(name)),
    [],
  );
}

interface Tool {
  readonly run: (...args: readonly string[]) => Promise<string>;
  readonly read: (...args: readonly string[]) => Promise<unknown>;
  readonly check: (command: string, work: () => Promise<void>) => Promise<boolean>;
}

interface ConfigFiles {
  readonly pod: string;
  readonly container: string;
  readonly logs: string;
}

/** crictl reads JSON in the proto's own field names. */
async function writeConfigs({ daemon, image, runtimeHandler }: CrictlSession): Promise<ConfigFiles> {
  const { workspace } = daemon;
  const logs = path.join(workspace.logs, `crictl-${runtimeHandler}`);
  await mkdir(logs, { recursive: true });
  const files = { pod: path.join(logs, "pod.json"), container: path.join(logs, "container.json"), logs };
  await writeFile(
    files.pod,
    JSON.stringify({
      metadata: { name: "crictl", namespace: "e2e", uid: `crictl-${runtimeHandler}`, attempt: 1 },
      hostname: "crictl-pod",
      log_directory: logs,
      labels: { from: "crictl" },
      linux: { cgroup_parent: workspace.cgroupParent },
    }),
  );
  await writeFile(
    files.container,
    JSON.stringify({
      metadata: { name: "main" },
      image: { image },
      command: [
        "sh",
        "-c",
        "echo said on stdout; echo said on stderr >&2; trap 'exit 0' TERM; while :; do sleep 0.1; done",
      ],
      log_path: "main.log",
      linux: { resources: { memory_limit_in_bytes: 134217728, cpu_shares: 256 } },
    }),
  );
  return files;
}

async function checkNode({ run, read, check }: Tool): Promise<void> {
  await check("version", async () => {
    assert.match(await run("version"), /RuntimeName:\s+berth[\s\S]*RuntimeApiVersion:\s+v1/u);
  });
  await check("info", async () => {
    const info = await read("info");
    const conditions = Object.fromEntries(
      listAt(info, "status", "conditions").map((each) => [at(each, "type"), at(each, "status")]),
    );
    assert.deepEqual(conditions, { RuntimeReady: true, NetworkReady: true, RegistriesReady: true });
    const handlers = listAt(info, "runtimeHandlers").map((handler) => at(handler, "name") ?? "");
    assert.deepEqual(new Set(handlers), new Set(["", "crun", "runc"]));
  });
}

async function checkImage({ run, read, check }: Tool, image: string): Promise<string> {
  let imageId = "";
  await check("pull", async () => {
    assert.match(await run("pull", image), /^Image is up to date for /u);
  });
  await check("images", async () => {
    const answer = await read("images", "-o", "json");
    const found = listAt(answer, "images").filter((entry) => listAt(entry, "repoTags").includes(image));
    assert.equal(found.length, 1);
    imageId = String(at(found[0], "id"));
    assert.match(await run("images"), new RegExp(imageId.replace("sha256:", "").slice(0, 12), "u"));
  });
  await check("inspecti", async () => {
    const answer = await read("inspecti", image);
    assert.equal(at(answer, "status", "id"), imageId);
    assert.ok(Number(at(answer, "status", "size")) > 0);
  });
  await check("imagefsinfo", async () => {
    const answer = await read("imagefsinfo", "-o", "json");
    const [filesystem] = listAt(answer, "status", "imageFilesystems");
    assert.ok(Number(at(filesystem, "usedBytes", "value")) > 0);
    assert.match(String(at(filesystem, "fsId", "mountpoint")), /^\//u);
  });
  return imageId;
}

async function checkPod({ run, read, check }: Tool, handler: string, podFile: string): Promise<string> {
  let pod = "";
  await check("runp", async () => {
    pod = await run("runp", "--runtime", handler, podFile);
    assert.match(pod, /^[0-9a-f]{64}$/u);
  });
  await check("pods", async () => {
    const answer = await read("pods", "-o", "json");
    const [found] = listAt(answer, "items").filter((item) => at(item, "id") === pod);
    assert.equal(at(found, "state"), "SANDBOX_READY");
    assert.equal(at(found, "runtimeHandler"), handler);
    assert.deepEqual(at(found, "labels"), { from: "crictl" });
    assert.match(await run("pods", "--id", pod.slice(0, 12)), /Ready\s+crictl\s+e2e\s+1/u);
  });
  await check("inspectp", async () => {
    const answer = await read("inspectp", pod);
    assert.equal(at(answer, "status", "metadata", "name"), "crictl");
    assert.match(String(at(answer, "status", "network", "ip")), /^10\.88\./u);
  });
  return pod;
}

async function checkContainer(
  { run, read, check }: Tool,
  of: { pod: string; imageId: string; files: ConfigFiles; logs: string },
): Promise<string> {
  let id = "";
  await check("create", async () => {
    id = await run("create", of.pod, of.files.container, of.files.pod);
    assert.match(id, /^[0-9a-f]{64}$/u);
  });
  await check("start", async () => {
    assert.equal(await run("start", id), id);
  });
  await check("ps", async () => {
    const answer = await read("ps", "-o", "json");
    const [found] = listAt(answer, "containers").filter((entry) => at(entry, "id") === id);
    assert.equal(at(found, "state"), "CONTAINER_RUNNING");
    assert.equal(at(found, "podSandboxId"), of.pod);
    assert.match(await run("ps"), /Running\s+main\s+0/u);
  });
  await check("inspect", async () => {
    const answer = await read("inspect", id);
    assert.equal(at(answer, "status", "state"), "CONTAINER_RUNNING");
    assert.equal(at(answer, "status", "imageId"), of.imageId);
    assert.ok(Number(at(answer, "info", "pid")) > 0, "info.pid");
  });
  await check("exec -s", async () => {
    assert.equal((await run("exec", "-s", id, "hostname")).trim(), "crictl-pod"); // crictl adds a newline
    await assert.rejects(run("exec", "-s", id, "sh", "-c", "exit 3"), /exited with 3/u);
  });
  await check("logs", async () => {
    const log = await waitUntil("both lines in the log", async () => {
      const text = await readFile(path.join(of.logs, "main.log"), "utf8");
      return text.includes("stderr F") && text.includes("stdout F") ? run("logs", id) : undefined;
    });
    assert.match(log, /said on stdout/u);
  });
  await check("stats", async () => {
    const answer = await read("stats", "-o", "json", id);
    const [found] = listAt(answer, "stats");
    assert.equal(at(found, "attributes", "id"), id);
    assert.ok(Number(at(found, "memory", "workingSetBytes", "value")) > 0, "memory");
    assert.ok(Number(at(found, "cpu", "usageCoreNanoSeconds", "value")) > 0, "cpu");
  });
  await check("update", async () => {
    await run("update", "--memory", "67108864", "--cpu-share", "512", id);
    const answer = await read("inspect", id);
    assert.equal(Number(at(answer, "status", "resources", "linux", "memoryLimitInBytes")), 67_108_864);
    assert.equal(Number(at(answer, "status", "resources", "linux", "cpuShares")), 512);
  });
  return id;
}

async function checkContainerEnd({ run, read, check }: Tool, id: string): Promise<void> {
  await check("stop", async () => {
    await run("stop", "--timeout", "10", id);
    const answer = await read("inspect", id);
    assert.equal(at(answer, "status", "state"), "CONTAINER_EXITED");
    assert.equal(Number(at(answer, "status", "exitCode") ?? 0), 0);
  });
  await check("rm", async () => {
    await run("rm", id);
    const answer = await read("ps", "-a", "-o", "json");
    assert.equal(listAt(answer, "containers").filter((entry) => at(entry, "id") === id).length, 0);
  });
}

async function checkRemoval({ run, read, check }: Tool, pod: string, image: string): Promise<void> {
  await check("stopp", async () => {
    assert.match(await run("stopp", pod), new RegExp(`Stopped sandbox ${pod}`, "u"));
    const answer = await read("inspectp", pod);
    assert.equal(at(answer, "status", "state"), "SANDBOX_NOTREADY");
  });
  await check("rmp", async () => {
    assert.match(await run("rmp", pod), new RegExp(`Removed sandbox ${pod}`, "u"));
    await assert.rejects(run("inspectp", pod), /NotFound|not found/u);
  });
  await check("rmi", async () => {
    assert.match(await run("rmi", image), /Deleted: /u);
    await assert.rejects(run("inspecti", image), /no such image|not found|NotFound/u);
  });
}
