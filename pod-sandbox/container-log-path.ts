import { lstat, mkdir, rm } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";

/**
 * Where a container's log is to be written; "" where it writes none.
 *
 * @throws {CriError} `InvalidArgument` for a path that leaves the pod's log directory or names no file in it.
 */
export function logPathOf(config: cri.ContainerConfig, sandbox: cri.PodSandboxConfig): string {
  const { logPath } = config;
  if (logPath === "" || sandbox.logDirectory === "") return "";
  if (isAbsolute(logPath) || logPath.split("/").includes("..") || logPath.includes("\0")) {
    throw new CriError(Code.InvalidArgument, `log_path "${logPath}" leaves the log directory`);
  }
  if (logPath.endsWith("/") || basename(logPath) === ".") {
    throw new CriError(Code.InvalidArgument, `log_path "${logPath}" is not the path of a file`);
  }
  return join(sandbox.logDirectory, logPath);
}

/**
 * kubelet owns the log directory; a link put in the log file's place would make the monitor write where it points.
 *
 * @throws {CriError} `FailedPrecondition` where a directory is in the file's place.
 */
export async function prepareLog(logPath: string): Promise<void> {
  if (logPath === "") return;
  await mkdir(dirname(logPath), { recursive: true, mode: 0o755 });
  const found = await lstat(logPath).catch(() => undefined);
  if (found?.isDirectory()) throw new CriError(Code.FailedPrecondition, `log path "${logPath}" is a directory`);
  if (found && !found.isFile()) await rm(logPath);
}
