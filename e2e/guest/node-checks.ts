import { access } from "node:fs/promises";
import { parseArgs } from "node:util";
import { podConfig } from "../harness/configs.ts";
import { createReport, type Report } from "../harness/report.ts";
import { createWorkspace } from "../harness/workspace.ts";
import { checkApparmor } from "./checks/apparmor.ts";
import { checkClock } from "./checks/clock.ts";
import { checkLifecycle } from "./checks/lifecycle.ts";
import { cgroupParent, connectToNode, image, type Node } from "./checks/node.ts";
import { checkFurtherLimits, checkResources, makeSlice } from "./checks/resources.ts";
import { checkService } from "./checks/service.ts";

/** Inside the guest: what only a node with systemd and cgroup v2 can show, and critest does not ask. */
const usage = `node-checks [OPTIONS]
  --runtime crun|runc   default crun
  --short               life, OOM kill, limits, their update and statistics only
  --only NAME           one of lifecycle, resources, limits, apparmor, clock, service`;

const { values: options } = parseArgs({
  options: {
    runtime: { type: "string", default: "crun" },
    short: { type: "boolean", default: false },
    only: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const checks = {
  lifecycle: checkLifecycle,
  resources: checkResources,
  limits: checkFurtherLimits,
  apparmor: async (node: Node, report: Report) => {
    if (await hasApparmor()) await checkApparmor(node, report);
  },
  clock: checkClock,
  service: checkService,
} as const satisfies Record<string, (node: Node, report: Report) => Promise<void>>;

function chosenNames(): readonly string[] {
  if (options.only !== undefined && !(options.only in checks)) throw new Error(`no checks are called ${options.only}`);
  if (options.only !== undefined) return [options.only];
  return options.short ? ["lifecycle", "resources"] : Object.keys(checks);
}

async function hasApparmor(): Promise<boolean> {
  return access("/sys/kernel/security/apparmor").then(
    () => true,
    () => false,
  );
}

async function main(): Promise<void> {
  if (options.help) return console.log(usage);
  const report = createReport();
  const chosen = chosenNames();
  await using workspace = await createWorkspace();
  using client = connectToNode();
  await makeSlice();
  await client.call("PullImage", { image: { image } });
  const config = podConfig(workspace, "checks", {
    linux: { cgroupParent, securityContext: { privileged: true, namespaceOptions: { pid: "POD" } } },
  });
  const runtimeHandler = options.runtime;
  const { podSandboxId: id } = await client.call("RunPodSandbox", { config, runtimeHandler });
  const node: Node = { client, workspace, runtimeHandler, pod: { id, config } };
  try {
    for (const [name, check] of Object.entries(checks)) if (chosen.includes(name)) await check(node, report);
  } finally {
    await client.call("StopPodSandbox", { podSandboxId: id });
    await client.call("RemovePodSandbox", { podSandboxId: id });
  }
  if (!report.conclude(`guest node checks with ${options.runtime}`)) process.exitCode = 1;
}

await main();
