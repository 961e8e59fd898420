import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Daemon } from "../harness/daemon.ts";
import type { Report } from "../harness/report.ts";
import { runCommand } from "../harness/run-command.ts";

/** The one image that critest pulls by a digest fixed in its source. */
const fixedDigest = "9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

interface CritestRun {
  readonly binaries: string;
  readonly daemon: Pick<Daemon, "workspace" | "socketPath">;
  readonly runtimeHandler: string;
  /** The digest of our stand-in for that image. */
  readonly digest: string;
  readonly parallel: number;
  readonly focus: string | undefined;
  /** Of the whole run, as ginkgo writes durations; 20m without one. */
  readonly timeout?: string;
  /** More of critest's own options. */
  readonly flags?: readonly string[];
  /** Instead of those of a machine without AppArmor. */
  readonly expectedSkips?: readonly ExpectedSkip[];
}

/** A spec that a machine or a runtime cannot run, and why; any other skip is a failure. */
interface ExpectedSkip {
  readonly pattern: RegExp;
  readonly reason: string;
}

/** With runtimes that can map mounts. */
export const skipsOfNewerRuntimes: readonly ExpectedSkip[] = [
  { pattern: /^AppArmor /u, reason: "no AppArmor in this kernel" },
];
const usualSkips: readonly ExpectedSkip[] = [
  ...skipsOfNewerRuntimes,
  { pattern: / UserNamespaces /u, reason: "this runtime cannot map mounts" },
];

/** Runs critest by ginkgo and adds one outcome per spec to the report. */
export async function runCritest(run: CritestRun, report: Report): Promise<void> {
  const { workspace } = run.daemon;
  const binary = path.join(workspace.directory, "critest.test");
  const text = await readFile(path.join(run.binaries, "critest"), "latin1");
  const parts = text.split(fixedDigest);
  if (parts.length !== 2) throw new Error(`critest holds the digest ${parts.length - 1} times instead of once`);
  await writeFile(binary, parts.join(run.digest.replace("sha256:", "")), { encoding: "latin1", mode: 0o755 });
  console.log(
    `critest: in this copy of the test binary sha256:${fixedDigest.slice(0, 12)}… reads ${run.digest.slice(0, 19)}…`,
  );
  const before = await listSharedMemory();
  const startedAt = performance.now();
  await runGinkgo(run, binary);
  console.log(`critest: ${((performance.now() - startedAt) / 1000).toFixed(1)} s with ${run.parallel} in parallel`);
  await reportSpecs(path.join(workspace.directory, "critest.json"), report, run.expectedSkips ?? usualSkips);
  // The HostIpc specs make a segment each and leave it.
  for (const id of await listSharedMemory()) if (!before.has(id)) await runCommand(["ipcrm", "-m", id]);
}

async function runGinkgo(run: CritestRun, binary: string): Promise<void> {
  const { workspace, socketPath } = run.daemon;
  const endpoint = `unix://${socketPath}`;
  const args = [
    `--nodes=${run.parallel}`,
    "--no-color",
    "--succinct",
    `--timeout=${run.timeout ?? "20m"}`,
    "--skip=benchmark",
    ...(run.focus === undefined ? [] : [`--focus=${run.focus}`]),
    `--output-dir=${workspace.directory}`,
    "--json-report=critest.json",
    binary,
    "--",
    `--runtime-endpoint=${endpoint}`,
    `--image-endpoint=${endpoint}`,
    `--runtime-handler=${run.runtimeHandler}`,
    ...(run.flags ?? []),
  ];
  const child = spawn(path.join(run.binaries, "ginkgo"), args, {
    cwd: workspace.directory,
    env: { PATH: process.env["PATH"], HOME: workspace.temporary, TMPDIR: workspace.temporary },
    stdio: ["ignore", "inherit", "inherit"],
  });
  // Its exit code says what the report says in more detail.
  await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
}

interface SpecReport {
  readonly ContainerHierarchyTexts: readonly string[] | null;
  readonly LeafNodeText: string;
  readonly LeafNodeType: string;
  readonly State: string;
  readonly RunTime: number;
  readonly Failure?: { readonly Message?: string };
}

async function reportSpecs(file: string, report: Report, skips: readonly ExpectedSkip[]): Promise<void> {
  const suites = JSON.parse(await readFile(file, "utf8")) as readonly { SpecReports: readonly SpecReport[] }[];
  for (const spec of suites.flatMap((suite) => suite.SpecReports)) {
    const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(" ").replaceAll("[k8s.io] ", "");
    const isBenchmark = /benchmark/iu.test(name);
    const isOutOfFocus = spec.State === "skipped" && (spec.Failure?.Message ?? "") === "";
    if (isBenchmark || isOutOfFocus) continue;
    if (spec.LeafNodeType !== "It" && spec.State === "passed") continue;
    report.add(judge(spec, name, skips));
  }
}

function judge(
  spec: SpecReport,
  name: string,
  skips: readonly ExpectedSkip[],
): { name: string; result: "passed" | "failed" | "skipped"; detail: string } {
  const seconds = `${(spec.RunTime / 1e9).toFixed(1)} s`;
  const message = firstLines(spec.Failure?.Message ?? "");
  if (spec.State === "passed") return { name, result: "passed", detail: seconds };
  const expected = skips.find(({ pattern }) => pattern.test(`${name} `));
  if (spec.State !== "skipped") return { name, result: "failed", detail: `${seconds}, ${spec.State}: ${message}` };
  if (expected === undefined) return { name, result: "failed", detail: `unexpected skip: ${message}` };
  return { name, result: "skipped", detail: `${expected.reason}: ${message}` };
}

/** Gomega prints whole objects after the reason; ginkgo has shown them already. */
function firstLines(message: string): string {
  return message.trim().split("\n").slice(0, 4).join(" ").replaceAll(/\s+/gu, " ").slice(0, 300);
}

async function listSharedMemory(): Promise<ReadonlySet<string>> {
  const table = await readFile("/proc/sysvipc/shm", "utf8");
  return new Set(
    table
      .trim()
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/u)[1] ?? ""),
  );
}
