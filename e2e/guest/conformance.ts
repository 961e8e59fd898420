import { copyFile, readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { parseArgs } from "node:util";
import { runCritest } from "../conformance/critest.ts";
import { createReport, type Report } from "../harness/report.ts";
import { runCommand } from "../harness/run-command.ts";
import { createWorkspace } from "../harness/workspace.ts";
import { socketPath } from "./checks/node.ts";

/** Runs inside the guest, against the service that systemd started. */
const usage = `conformance [OPTIONS]: critest against the node's Berth
  --runtime crun|runc   default crun
  --parallel N          specs at a time (default 2)
  --short               only the specs of e2e/guest/specs.txt
  --focus REGEX         only the specs that match`;

const { values: options } = parseArgs({
  options: {
    runtime: { type: "string", default: "crun" },
    parallel: { type: "string", default: "2" },
    short: { type: "boolean", default: false },
    focus: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** Lines are names as ginkgo joins them: the whole of a name or its beginning. */
async function readShortList(): Promise<string> {
  const text = await readFile(path.join(import.meta.dirname, "specs.txt"), "utf8");
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.replaceAll(/[.*+?^${}()|[\]\\]/gu, String.raw`\$&`)).join("|");
}

async function main(): Promise<void> {
  if (options.help) return console.log(usage);
  const report = createReport();
  await using workspace = await createWorkspace();
  await runCritest(
    {
      binaries: "/usr/local/bin",
      daemon: { workspace, socketPath },
      digest: await readFile("/payload/registry/digest", "utf8"),
      runtimeHandler: options.runtime,
      parallel: Number(options.parallel),
      focus: options.short ? await readShortList() : options.focus,
      timeout: "4h",
      // Debian 13's runc 1.1.15 cannot map mounts; all else a whole node can.
      expectedSkips: options.runtime === "runc" ? [{ pattern: / UserNamespaces /u, reason: "runc 1.1" }] : [],
    },
    report,
  );
  await copyFile(path.join(workspace.directory, "critest.json"), `/results/critest-${options.runtime}.json`);
  await checkWhatIsLeft(report);
  if (!report.conclude("guest conformance")) process.exitCode = 1;
}

/** critest removes its pods; then systemd knows none of their scopes, and the kernel none of their cgroups. */
async function checkWhatIsLeft(report: Report): Promise<void> {
  await report.check("no scope is left", async () => {
    const units = await runCommand(["systemctl", "list-units", "--all", "--plain", "--no-legend", "berth-*.scope"]);
    if (units !== "") throw new Error(units);
  });
  await report.check("no cgroup of a container is left", async () => {
    const names = await readdir("/sys/fs/cgroup", { recursive: true });
    const left = names.filter((name) => /berth-[0-9a-f]{64}/u.test(name));
    if (left.length > 0) throw new Error(left.join("\n"));
  });
}

await main();
