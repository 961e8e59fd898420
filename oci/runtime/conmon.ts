import { access, readdir, readlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import type { ProcessHandle, SeqpacketHandlers, SeqpacketSocket } from "../../native/index.ts";
import {
  connectThroughRelay,
  findProcesses,
  isAlive,
  killUntilGone,
  openProcess,
  readFileBounded,
  removeFiles,
  resolveForeignPaths,
  signalProcess,
  within,
  writeFifo,
} from "../../native/index.ts";
import { codeOf } from "./cgroup-processes.ts";
import { hearHandshake, monitorOf, pidFile, withConmon } from "./conmon-launch.ts";
import type { ConmonConfig } from "./conmon-launch.ts";
import type { Monitor, MonitorLaunch, MonitorOutcome } from "./monitor.ts";
import { descendantsOf, isLive, readStat } from "./process-tree.ts";
import type { ProcessStat } from "./process-tree.ts";

const sigstop = 19;
const sigkill = 9;
const killDeadlineMs = 5_000;
/** What conmon leaves in a bundle; it removes nothing itself. */
const leftovers = ["attach", "ctl", "winsz", "init.pid", pidFile, "oom"] as const;

/** The monitor of CRI-O and podman. Uses nothing that Debian 12's 2.1.6 lacks. @see https://github.com/containers/conmon */
export function createConmon(config: ConmonConfig): Monitor {
  return {
    launch: (signal, launch) => launchConmon(config, signal, launch),
    end: endConmon,
    endHalfMade,
    sawOom: async (bundle) => await isThere(join(bundle, "oom")),
    reopenLog: (bundle) => control(bundle, "2 0 0\n"),
    holdsFile,
    resize: (bundle, { height, width }) => control(bundle, `1 ${cells(height)} ${cells(width)}\n`),
    attach: attachTo,
  };
}

export function conmonArguments(config: ConmonConfig, launch: MonitorLaunch): readonly [string, ...string[]] {
  const { id, bundle, tty, stdin, stdinOnce, logPath } = launch;
  return [
    config.path,
    `--bundle=${bundle}`,
    `--cid=${id}`,
    `--cuuid=${id}`,
    `--name=${id}`,
    `--runtime=${config.runtimePath}`,
    ...config.runtimeArguments.map((argument) => `--runtime-arg=${argument}`),
    `--conmon-pidfile=${join(bundle, pidFile)}`,
    `--container-pidfile=${join(bundle, "init.pid")}`,
    `--exit-dir=${config.exitDirectory}`,
    `--log-path=${logPath === "" ? "none" : `k8s-file:${logPath}`}`,
    "--no-sync-log", // an fsync of every log at its end costs tens of ms; a power loss may take a log's last lines
    "--full-attach", // the socket stays in the bundle, however long its path is
    ...(config.usesSystemdCgroups ? ["--systemd-cgroup"] : []),
    ...(tty ? ["--terminal"] : []),
    ...(stdin ? ["--stdin"] : []),
    ...(stdin && !stdinOnce ? ["--leave-stdin-open"] : []),
  ];
}

async function launchConmon(config: ConmonConfig, signal: AbortSignal, launch: MonitorLaunch): Promise<MonitorOutcome> {
  const { bundle } = launch;
  const argv = conmonArguments(config, launch);
  // the working directory is where conmon puts its `oom` file
  return await withConmon({ argv, env: config.env, cwd: bundle }, signal, async (pipes) => {
    await launch.prepare();
    pipes.start.end("\0");
    const told = await hearHandshake(pipes, signal);
    if (told.pid <= 0) return { kind: "failed", output: told.message };
    return { kind: "created", initPid: told.pid, monitor: await monitorOf(bundle) };
  });
}

async function endConmon(bundle: string, graceMs: number): Promise<void> {
  const identity = await monitorOf(bundle);
  const monitor = identity && (await isTold(identity.pid, bundle)) ? openProcess(identity) : undefined;
  if (monitor) {
    await using process = monitor;
    if (!(await endsWithin(process, graceMs))) await killWithChildren(process);
  }
  await removeLeftovers(bundle);
}

/** Its children first: while one of them cannot die, the next try finds it below the monitor. */
async function killWithChildren(monitor: ProcessHandle): Promise<void> {
  if (!(await killUntilGone(() => descendantsOf(monitor.identity.pid), killDeadlineMs))) throw survival();
  monitor.signal(sigkill);
  if (!(await endsWithin(monitor, killDeadlineMs))) throw survival();
}

async function endsWithin(process: ProcessHandle, ms: number): Promise<boolean> {
  await within(ms, process.exited);
  return !isAlive(process.identity);
}

/** What a create has got to is not known: maybe the monitor never came to write its pid. */
async function endHalfMade(bundle: string): Promise<void> {
  const findAll = async (): Promise<readonly ProcessStat[]> => {
    const told = await findTold(bundle);
    return [...(await Promise.all(told.map(({ pid }) => descendantsOf(pid)))).flat(), ...told];
  };
  for (const one of await findAll()) await signalProcess(one, sigstop); // it may be about to fork
  if (!(await killUntilGone(findAll, killDeadlineMs))) throw survival();
  await removeLeftovers(bundle);
}

function survival(): CriError {
  return new CriError(Code.Internal, "the container's monitor, or what it has started, survives SIGKILL");
}

async function removeLeftovers(bundle: string): Promise<void> {
  await removeFiles(leftovers.map((name) => join(bundle, name)));
}

/** Monitors and runtimes at work on this bundle, which they are told of and stand in, also once it has been removed. */
function findTold(bundle: string): Promise<readonly ProcessStat[]> {
  const end = join("/", basename(dirname(bundle)), basename(bundle)); // the way to there may lead over links
  return findProcesses(async (pid) => {
    const directory = await readlink(`/proc/${pid}/cwd`).catch(() => ""); // of somebody else, a command line may hang
    if (!directory.replace(/ \(deleted\)$/, "").endsWith(end)) return undefined;
    const stat = await readStat(pid); // before a closer look: the number may change hands
    return isLive(stat) && (await isTold(pid, bundle)) ? stat : undefined;
  });
}

/** A pid file may be of another boot or long stale; only a process that was told this bundle is ours to kill. */
async function isTold(pid: number, bundle: string): Promise<boolean> {
  const commandLine = await readFileBounded(`/proc/${pid}/cmdline`, 128 * 1024).catch(() => undefined);
  const text = `\0${commandLine?.toString("utf8") ?? ""}`;
  return [`\0--bundle=${bundle}\0`, `\0--bundle\0${bundle}\0`].some((told) => text.includes(told));
}

async function control(bundle: string, line: string): Promise<void> {
  try {
    await writeFifo(join(bundle, "ctl"), line);
  } catch (thrown) {
    if (!["ENXIO", "ENOENT", "EPIPE"].includes(codeOf(thrown) ?? "")) throw thrown;
    throw new CriError(Code.FailedPrecondition, "the container's monitor is gone", { cause: thrown });
  }
}

/** conmon keeps one digit group per number and clips at 1000 itself; never write it a sign or a fraction. */
function cells(count: number): number {
  return Math.min(Math.max(Math.trunc(count) || 0, 0), 1000);
}

async function holdsFile(signal: AbortSignal, bundle: string, identity: string): Promise<boolean> {
  const monitor = await monitorOf(bundle);
  if (!monitor) return false;
  const directory = `/proc/${monitor.pid}/fd`;
  const names = await readdir(directory).catch(() => []);
  const held = await resolveForeignPaths(
    names.map((name) => ({ path: join(directory, name), want: "look" })),
    { signal },
  );
  return held.some((one) => !("error" in one) && one.identity === identity);
}

/** conmon waits for every client to take its output, and the container with it: a stopped daemon must not be one. */
async function attachTo(bundle: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket> {
  try {
    return await connectThroughRelay(join(bundle, "attach"), handlers);
  } catch (thrown) {
    throw new CriError(Code.FailedPrecondition, "the container's monitor is gone", { cause: thrown });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
