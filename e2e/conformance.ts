import path from "node:path";
import { parseArgs } from "node:util";
import { exerciseCrictl } from "./conformance/crictl.ts";
import { runCritest, skipsOfNewerRuntimes } from "./conformance/critest.ts";
import { mirroredHosts, pushStandIns } from "./conformance/images.ts";
import { type Daemon, startDaemon } from "./harness/daemon.ts";
import { findTraces, waitForNoLeaks } from "./harness/leaks.ts";
import { newerRuntimes } from "./harness/newer-runtimes.ts";
import { removeNodeNetwork } from "./harness/network.ts";
import { startRegistry } from "./harness/registry.ts";
import { createReport, type Report } from "./harness/report.ts";
import { cacheDirectory } from "./harness/repository.ts";
import { createWorkspace, type Workspace } from "./harness/workspace.ts";

const usage = `npm run conformance [-- OPTIONS]: the Kubernetes tools against Berth
  --only crictl|critest   one of the two
  --runtime crun|runc     critest with this runtime (default crun)
  --newer                 critest with the newest crun or runc that Debian offers, unpacked beside the system's
  --serial                critest one spec at a time
  --focus REGEX           only the specs of critest that match`;

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    runtime: { type: "string", default: "crun" },
    newer: { type: "boolean", default: false },
    serial: { type: "boolean", default: false },
    focus: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const binaries = path.join(cacheDirectory, "conformance/current");

/** Starts a registry with stand-ins and a daemon, hands them to `work`, and checks that nothing is left after it. */
async function withDaemon(
  report: Report,
  title: string,
  work: (daemon: Daemon, registry: string, digest: string) => Promise<void>,
): Promise<void> {
  await using workspace = await createWorkspace();
  await using registry = await startRegistry(path.join(workspace.directory, "registry"));
  const { digest } = await pushStandIns(path.join(workspace.directory, "images"), registry.address);
  const before = await findTraces({ workspace, ids: new Set() });
  let log = "";
  try {
    const runtimes = options.newer ? { runtimes: newerRuntimes } : {};
    const registries = [registry.address];
    await using daemon = await startDaemon(workspace, { registries, mirroredHosts, ...runtimes });
    await work(daemon, registry.address, digest);
    log = await daemon.readLog();
  } finally {
    await removeNodeNetwork(workspace);
  }
  await report.check(`nothing is left after ${title}`, () => expectNoLeaks(workspace, before, log));
}

async function expectNoLeaks(
  workspace: Workspace,
  before: Awaited<ReturnType<typeof findTraces>>,
  log: string,
): Promise<void> {
  const ids = new Set(log.match(/\b[0-9a-f]{64}\b/gu));
  // Images stay, as on a node; the folder goes with the workspace.
  const isExpected = (line: string): boolean => line.startsWith(`files: ${workspace.directory}/`);
  const left = await waitForNoLeaks(before, { workspace, ids }, { isExpected });
  if (left.length > 0) throw new Error(`left behind:\n${left.join("\n")}`);
}

const webSocketFlags = ["-websocket-exec", "-websocket-attach", "-websocket-portforward"];

/** critest streams by SPDY unless told otherwise; its specs have the same names either way. */
function overWebSocket(report: Report): Report {
  return { ...report, add: (outcome) => report.add({ ...outcome, name: `${outcome.name} [WebSocket]` }) };
}

async function main(): Promise<void> {
  if (options.help) return console.log(usage);
  const report = createReport();
  if (options.only !== "critest") {
    for (const runtimeHandler of ["crun", "runc"]) {
      await withDaemon(report, `crictl with ${runtimeHandler}`, async (daemon) => {
        const image = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
        await exerciseCrictl({ crictl: path.join(binaries, "crictl"), daemon, runtimeHandler, image }, report);
      });
    }
  }
  if (options.only !== "crictl") {
    await withDaemon(report, `critest with ${options.runtime}`, async (daemon, _registry, digest) => {
      const run = {
        binaries,
        daemon,
        digest,
        runtimeHandler: options.runtime,
        parallel: options.serial ? 1 : 4,
        focus: options.focus,
        ...(options.newer ? { expectedSkips: skipsOfNewerRuntimes } : {}),
      };
      await runCritest(run, report);
      if (options.focus !== undefined && !options.focus.includes("Streaming")) return;
      await runCritest({ ...run, focus: "Streaming", flags: webSocketFlags }, overWebSocket(report));
    });
  }
  if (!report.conclude("conformance")) process.exitCode = 1;
}

await main();
