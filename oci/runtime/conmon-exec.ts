import { join } from "node:path";
import { Code, CriError } from "../../cri-api/index.ts";
import { connectSeqpacket, readFileBounded } from "../../native/index.ts";
import { hearHandshake, monitorOf, pidFile, readFirstLine, withConmon } from "./conmon-launch.ts";
import type { ConmonConfig } from "./conmon-launch.ts";
import { parseExitCode } from "./container-exit.ts";
import type { MonitorExec, MonitorExecOutcome } from "./monitor.ts";

const maxExitFileBytes = 32;

/** As podman does it: conmon waits for us to be attached before it lets the runtime execute the command. */
export async function execOnTerminal(
  config: ConmonConfig,
  signal: AbortSignal,
  exec: MonitorExec,
): Promise<MonitorExecOutcome> {
  const { directory, handlers } = exec;
  const command = { argv: execArguments(config, exec), env: config.env, cwd: directory, tellsReady: true };
  return await withConmon(command, signal, async (pipes) => {
    pipes.start.write("\0");
    const isReady = pipes.ready && (await readFirstLine(pipes.ready, signal)) !== undefined;
    if (!isReady) return { kind: "failed", output: pipes.said() };
    const socket = await connectSeqpacket(join(directory, "attach"), handlers);
    try {
      pipes.start.end("\0");
      const told = await hearHandshake(pipes, signal);
      const monitor = await monitorOf(directory);
      if (told.pid > 0 && monitor) return { kind: "started", monitor, socket };
      socket.close();
      return { kind: "failed", output: told.message };
    } catch (thrown) {
      socket.close();
      throw thrown;
    }
  });
}

function execArguments(
  config: ConmonConfig,
  { id, directory, processFile }: MonitorExec,
): readonly [string, ...string[]] {
  return [
    config.path,
    "--api-version=1",
    `--bundle=${directory}`,
    `--cid=${id}`,
    `--cuuid=${id}`,
    `--name=${id}`,
    `--runtime=${config.runtimePath}`,
    ...config.runtimeArguments.map((argument) => `--runtime-arg=${argument}`),
    `--conmon-pidfile=${join(directory, pidFile)}`,
    `--container-pidfile=${join(directory, "init.pid")}`,
    `--exit-dir=${directory}`, // by the container's id, as its own exit file is
    "--log-path=none",
    "--full-attach",
    "--exec",
    "--exec-attach",
    `--exec-process-spec=${processFile}`,
    "--terminal",
    "--stdin",
  ];
}

export async function readExecExit(directory: string, id: string): Promise<number> {
  const text = await readFileBounded(join(directory, id), maxExitFileBytes);
  if (!text) throw new CriError(Code.Internal, "the command's monitor wrote no exit code");
  return parseExitCode(text.toString("latin1"));
}
