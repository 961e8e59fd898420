import { mkdir, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import type { cri, Init } from "../cri-api/index.ts";
import { containerConfig, podConfig } from "./harness/configs.ts";
import { waitForNoLeaks } from "./harness/leaks.ts";
import { isOfNode } from "./harness/network.ts";
import { createReport, runMain } from "./harness/report.ts";
import { repository } from "./harness/repository.ts";
import { openTestNode, type TestNode } from "./harness/test-node.ts";

const usage = `usage: npm run leaks -- [options]
Lives that many lives of pods, some at a time, and compares what the daemon and the node hold before and after.
  --pods N       default 1000
  --parallel N   default 4
  --runtime NAME crun (default) or runc
`;

/** Pools and caches fill, and the compiler is done, before the first look. */
const warmUpPods = 50;
/** Idle threads, and the daemon's own release of memory at rest, take less than this. */
const settleMs = 15_000;
const mostGrowth = 0.1;
/** What is only late to go is gone at a later look; what leaks is more at each. */
const mostLooks = 5;
const podsBetweenLooks = 20;

/** What a process holds; each of it is to be after all pods what it was before them, memory but for a tenth. */
interface Holdings {
  /** Of its own: pages of the program's file come and go with what runs, and the kernel takes them back at will. */
  readonly "anonymous KiB": number;
  readonly descriptors: number;
  readonly threads: number;
  readonly children: number;
}

/** Without garbage, and at rest. */
async function measure(pid: number): Promise<Holdings> {
  process.kill(pid, "SIGUSR2");
  await new Promise((resolve) => setTimeout(resolve, settleMs));
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, "mu").exec(status)?.[1]);
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return {
    "anonymous KiB": field("RssAnon"),
    descriptors: (await readdir(`/proc/${pid}/fd`)).length,
    threads: field("Threads"),
    children: children.split(" ").filter((child) => child !== "").length,
  };
}

/** One pod from its first call to its last, with all that touches it on the way. */
async function livePod(node: TestNode, runtimeHandler: string, name: string): Promise<void> {
  const { client, workspace } = node.daemon;
  const config: Init<cri.PodSandboxConfig> = podConfig(workspace, name, {
    linux: { securityContext: { namespaceOptions: { pid: "POD" } } },
  });
  await mkdir(config.logDirectory ?? "", { recursive: true });
  const { podSandboxId } = await client.call("RunPodSandbox", { config, runtimeHandler });
  const container = containerConfig("main", node.image("busybox"));
  const request = { podSandboxId, config: container, sandboxConfig: config };
  const { containerId } = await client.call("CreateContainer", request);
  await client.call("StartContainer", { containerId });
  const { stdout } = await client.call("ExecSync", { containerId, cmd: ["echo", name] });
  if (stdout.toString() !== `${name}\n`) throw new Error(`exec in ${name} said ${stdout.toString()}`);
  await client.call("ListContainerStats", {});
  await client.call("ListPodSandboxStats", {});
  await client.call("PodSandboxStatus", { podSandboxId, verbose: true });
  await client.call("StopContainer", { containerId, timeout: 5n });
  await client.call("RemoveContainer", { containerId });
  await client.call("StopPodSandbox", { podSandboxId });
  await client.call("RemovePodSandbox", { podSandboxId });
}

function namesOf(prefix: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}-${index}`);
}

async function livePods(node: TestNode, runtime: string, names: readonly string[], parallel: number): Promise<void> {
  const left = names.values();
  const worker = async (): Promise<void> => {
    for (const name of left) await livePod(node, runtime, name);
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

function hasGrown(before: Holdings, after: Holdings, name: keyof Holdings): boolean {
  const mayGrow = name.startsWith("anonymous") ? before[name] * mostGrowth : 0;
  return after[name] > before[name] + mayGrow;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      pods: { type: "string", default: "1000" },
      parallel: { type: "string", default: "4" },
      runtime: { type: "string", default: "crun" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(usage);
  const [count, parallel] = [Number(values.pods), Number(values.parallel)];
  const preload = path.join(repository, "e2e/harness/collect-garbage.ts");
  await using node = await openTestNode({ environment: { NODE_OPTIONS: `--import ${preload}` } });
  const { workspace, pid, client } = node.daemon;
  await livePods(node, values.runtime, namesOf("warm-up", warmUpPods), parallel);
  const before = await measure(pid);
  const startedAtMs = performance.now();
  await livePods(node, values.runtime, namesOf("pod", count), parallel);
  const tookMs = performance.now() - startedAtMs;
  let after = await measure(pid);
  const names = Object.keys(before) as (keyof Holdings)[];
  for (let look = 2; look <= mostLooks && names.some((name) => hasGrown(before, after, name)); look += 1) {
    console.log(`${JSON.stringify(after)}: looking again after ${podsBetweenLooks} more pods`);
    await livePods(node, values.runtime, namesOf(`look${look}`, podsBetweenLooks), parallel);
    after = await measure(pid);
  }

  console.log(`${count} pods, ${parallel} at a time, ${values.runtime}: ${(tookMs / count).toFixed(0)} ms each`);
  const report = createReport();
  for (const name of names) {
    await report.check(`${name}: ${before[name]} before, ${after[name]} after`, async () => {
      if (hasGrown(before, after, name)) throw new Error("it has grown");
    });
  }
  await report.check("no mount, namespace, cgroup, process, link, rule, lease or file is left", async () => {
    const isExpected = (line: string): boolean => isOfNode(workspace, line);
    const left = await waitForNoLeaks(node.empty, { workspace, ids: client.seenIds }, { isExpected });
    if (left.length > 0) throw new Error(left.join("\n    "));
  });
  if (!report.conclude("leaks")) process.exitCode = 1;
}

runMain(main);
