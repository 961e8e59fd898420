import { access, readdir, rm, stat } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { addAbortSignal } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { Code, CriError } from "../../cri-api/index.ts";
import type { Child, ProcessIdentity, SeqpacketHandlers, SeqpacketSocket } from "../../native/index.ts";
import {
  connectSeqpacket,
  openProcess,
  processIdentity,
  readFileBounded,
  spawn,
  writeFifo,
} from "../../native/index.ts";
import { codeOf } from "./cgroup-processes.ts";
import type { Monitor, MonitorLaunch, MonitorOutcome } from "./monitor.ts";
import { descendantsOf, killUntilGone } from "./process-tree.ts";
import { parseJson } from "./state.ts";

export interface ConmonConfig {
  readonly path: string;
  readonly runtimePath: string;
  readonly runtimeArguments: readonly string[];
  readonly usesSystemdCgroups: boolean;
  readonly exitDirectory: string;
  readonly env: Readonly<Record<string, string>>;
}

const maxHandshakeBytes = 64 * 1024;
const maxPidFileBytes = 32;
const killDeadlineMs = 5_000;
const pidFile = "conmon.pid";
/** What conmon leaves in a bundle; it removes nothing itself. */
const leftovers = ["attach", "ctl", "winsz", "init.pid", pidFile, "oom"] as const;

/** The monitor of CRI-O and podman. Uses nothing that Debian 12's 2.1.6 lacks. @see https://github.com/containers/conmon */
export function createConmon(config: ConmonConfig): Monitor {
  return {
    launch: (signal, launch) => launchConmon(config, signal, launch),
    end: endConmon,
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
  signal.throwIfAborted();
  await rm(join(launch.bundle, pidFile), { force: true }); // one of an earlier try would have us signal a stranger
  const child = spawn({
    argv: conmonArguments(config, launch),
    env: { ...config.env, _OCI_SYNCPIPE: "3", _OCI_STARTPIPE: "4" },
    cwd: launch.bundle, // where conmon puts its `oom` file
    stdio: ["null", "null", "pipe-write", "socket", "socket"],
    session: true,
  });
  const [, , complaints, sync, start] = child.stdio;
  if (!complaints || !sync || !start) throw new CriError(Code.Internal, "the monitor's pipes are missing");
  const said = collectComplaints(complaints);
  try {
    await launch.prepare();
    start.on("error", () => undefined).end("\0"); // EPIPE if it failed at once: the silence on `sync` tells
    const line = await readFirstLine(sync, signal);
    if (line === undefined) {
      await child.exited;
      return { kind: "failed", output: said() };
    }
    return await settle(child, launch.bundle, parseHandshake(line), said);
  } catch (thrown) {
    await killBeforeFork(child);
    signal.throwIfAborted();
    throw thrown;
  } finally {
    for (const socket of [complaints, sync, start]) socket.destroy();
  }
}

/** The real monitor is this child's until its pid file is written; after that, `end` finds it by the file. */
async function killBeforeFork(child: Child): Promise<void> {
  child.kill(19);
  await killUntilGone(() => descendantsOf(child.pid), killDeadlineMs);
  child.kill(9);
  await child.exited;
}

async function settle(child: Child, bundle: string, told: Handshake, said: () => string): Promise<MonitorOutcome> {
  await child.exited; // the one that forked the real monitor and wrote its pid; ends at once
  if (told.pid <= 0) return { kind: "failed", output: told.message === "" ? said() : told.message };
  return { kind: "created", initPid: told.pid, monitor: await monitorOf(bundle) };
}

interface Handshake {
  readonly pid: number;
  readonly message: string;
}

const handshakeSchema = v.object({
  pid: v.optional(v.pipe(v.number(), v.integer())),
  data: v.optional(v.pipe(v.number(), v.integer())),
  message: v.optional(v.string()),
});

/** conmon's one line: `{"pid": 42}`, `{"pid": -1, "message": "…"}`; `data` for `pid` with `--api-version`. */
export function parseHandshake(line: string): Handshake {
  const parsed = v.safeParse(handshakeSchema, parseJson(line));
  if (!parsed.success) return { pid: -1, message: "the monitor's answer cannot be read" };
  return { pid: parsed.output.pid ?? parsed.output.data ?? -1, message: parsed.output.message ?? "" };
}

/** Undefined when the other side closes without one, or with one that is too long. */
async function readFirstLine(socket: Socket, signal: AbortSignal): Promise<string | undefined> {
  addAbortSignal(signal, socket);
  let text = "";
  for await (const chunk of socket) {
    text += String(chunk);
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end);
    if (text.length > maxHandshakeBytes) return undefined;
  }
  return undefined;
}

/** The pipe stays open in what conmon starts, so its end is not waited for. */
function collectComplaints(socket: Socket): () => string {
  let text = "";
  socket.on("error", () => undefined);
  socket.on("data", (chunk) => {
    if (text.length < maxHandshakeBytes) text += chunk.toString("utf8");
  });
  return () => text;
}

async function monitorOf(bundle: string): Promise<ProcessIdentity | undefined> {
  const text = await readFileBounded(join(bundle, pidFile), maxPidFileBytes);
  const pid = Number(text?.toString("latin1").trim() || Number.NaN);
  return Number.isInteger(pid) && pid > 1 ? await processIdentity(pid) : undefined;
}

async function endConmon(bundle: string, graceMs: number): Promise<void> {
  const identity = await monitorOf(bundle);
  const monitor = identity && (await isConmonOf(identity.pid, bundle)) ? openProcess(identity) : undefined;
  if (monitor) {
    await using process = monitor;
    const isGone = await Promise.race([process.exited.then(() => true), sleep(graceMs, false)]);
    if (!isGone) {
      await killUntilGone(() => descendantsOf(identity?.pid ?? 0), killDeadlineMs);
      process.signal(9);
      await Promise.race([process.exited, sleep(killDeadlineMs)]);
    }
  }
  await Promise.all(leftovers.map((name) => rm(join(bundle, name), { force: true })));
}

/** The pid file may be of another boot or long stale; only a process that was told this bundle is ours to kill. */
async function isConmonOf(pid: number, bundle: string): Promise<boolean> {
  const commandLine = await readFileBounded(`/proc/${pid}/cmdline`, 128 * 1024).catch(() => undefined);
  return commandLine?.toString("utf8").split("\0").includes(`--bundle=${bundle}`) ?? false;
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

async function holdsFile(bundle: string, file: { readonly dev: bigint; readonly ino: bigint }): Promise<boolean> {
  const monitor = await monitorOf(bundle);
  if (!monitor) return false;
  const directory = `/proc/${monitor.pid}/fd`;
  const names = await readdir(directory).catch(() => []);
  const held = await Promise.all(
    names.map(async (name) => await stat(join(directory, name), { bigint: true }).catch(() => undefined)),
  );
  return held.some((one) => one?.dev === file.dev && one.ino === file.ino);
}

async function attachTo(bundle: string, handlers: SeqpacketHandlers): Promise<SeqpacketSocket> {
  try {
    return await connectSeqpacket(join(bundle, "attach"), handlers);
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
