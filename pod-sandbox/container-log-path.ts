import { basename, isAbsolute, join } from "node:path";
import { Code, CriError } from "../cri-api/index.ts";
import type { cri } from "../cri-api/index.ts";
import type { PathInfo } from "../native/index.ts";

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

const codeByError: Readonly<Partial<Record<string, Code>>> = {
  ETIMEDOUT: Code.DeadlineExceeded,
  ENOSPC: Code.ResourceExhausted,
  EDQUOT: Code.ResourceExhausted,
};

/**
 * Whether there is a file already where a log is to be written, of a place that has been made clean: kubelet owns the log
 * directory, and a link in the file's place would make the monitor write where it points.
 *
 * @throws {CriError} `FailedPrecondition` where there can be none, as for a directory in its place; `DeadlineExceeded`
 * for a file system that hangs.
 */
export function requireLogFile(logPath: string, info: PathInfo | undefined): boolean {
  if (info && !("error" in info)) return info.kind === "file";
  const error = info?.error ?? "no answer";
  const why = { EISDIR: "is a directory", ETIMEDOUT: "is on a file system that does not answer" }[error];
  const code = codeByError[error] ?? Code.FailedPrecondition;
  throw new CriError(code, `log path "${logPath}" ${why ?? `cannot be had: ${error}`}`);
}
