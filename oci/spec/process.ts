import type { cri } from "../../cri-api/index.ts";
import type { ImageDefaults } from "./input.ts";
import { invalid, quote } from "./invalid.ts";
import { assertNoControlCharacters, assertNoNul, cleanAbsolutePath, isAtOrBelow } from "./text.ts";

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * `command` replaces the image's entrypoint and drops its cmd; `args` alone replace the cmd.
 *
 * @throws {CriError} `InvalidArgument` where nothing is left to run.
 */
export function buildArgs(
  config: Pick<cri.ContainerConfig, "command" | "args">,
  image: Pick<ImageDefaults, "entrypoint" | "cmd">,
): readonly string[] {
  const fromConfig = [...config.command, ...config.args];
  const args =
    config.command.length > 0
      ? fromConfig
      : [...image.entrypoint, ...(config.args.length > 0 ? config.args : image.cmd)];
  if (args.length === 0) throw invalid("no command specified: neither the container nor its image names one");
  if (args[0] === "") throw invalid("the first word of the command is empty");
  for (const arg of args) assertNoNul("command argument", arg);
  return args;
}

/** Entries with names that are there take their place. */
export function addToEnv(env: readonly string[], added: readonly string[]): readonly string[] {
  const nameOf = (entry: string): string => entry.slice(0, entry.indexOf("="));
  return [...new Map([...env, ...added].map((entry) => [nameOf(entry), entry])).values()];
}

/** What the environment is made of besides the CRI's and the image's entries. */
export interface EnvironmentFacts {
  readonly hostname: string;
  readonly tty: boolean;
  readonly home: string | undefined;
}

/**
 * Merges, later ones winning: PATH and HOME defaults, TERM for a terminal, the image's, HOSTNAME, the CRI's.
 * Values are bytes on the wire, but config.json is UTF-8: other bytes are refused rather than silently replaced.
 *
 * @throws {CriError} `InvalidArgument` for a value that is not UTF-8, a NUL, or a key with `=`.
 */
export function buildEnv(
  envs: readonly cri.KeyValue[],
  imageEnv: readonly string[],
  facts: EnvironmentFacts,
): readonly string[] {
  const merged = new Map<string, string>([["PATH", defaultPath]]);
  if (facts.tty) merged.set("TERM", "xterm");
  merged.set("HOME", usableHome(facts.home));
  for (const entry of imageEnv) {
    const separator = entry.indexOf("=");
    if (separator > 0) merged.set(entry.slice(0, separator), entry.slice(separator + 1));
  }
  merged.set("HOSTNAME", facts.hostname);
  for (const { key, value } of envs) {
    if (key === "") continue; // as CRI-O does: kubelet never sends one, and no shell could read it
    if (key.includes("=")) throw invalid(`environment variable name ${quote(key)} contains "="`);
    merged.set(key, decodeValue(key, value));
  }
  for (const [key, value] of merged) {
    assertNoNul("environment variable name", key);
    if (value.includes("\0")) throw invalid(`environment variable ${quote(key)} contains a NUL character`);
  }
  assertNoControlCharacters("environment variable HOME", merged.get("HOME") ?? "");
  return [...merged].map(([key, value]) => `${key}=${value}`);
}

// The image's passwd file is hostile: what it calls a home must at least be a path.
function usableHome(home: string | undefined): string {
  return home !== undefined && home.startsWith("/") ? home : "/";
}

function decodeValue(key: string, value: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
  } catch (cause) {
    throw invalid(`environment variable ${quote(key)} is not UTF-8, which the OCI runtime configuration cannot carry`, {
      cause,
    });
  }
}

/**
 * The CRI's working directory, else the image's, else `/`.
 * Directories that stand for an open descriptor or a process lead out of the container (CVE-2024-21626).
 *
 * @throws {CriError} `InvalidArgument` for a relative path or one below /proc or /dev/fd.
 */
export function buildCwd(workingDir: string, imageWorkingDir: string): string {
  const wanted = workingDir || imageWorkingDir || "/";
  const cwd = cleanAbsolutePath("working directory", wanted);
  const isInProc = cwd !== "/proc" && isAtOrBelow(cwd, "/proc");
  if (isInProc || isAtOrBelow(cwd, "/dev/fd")) {
    throw invalid(`working directory ${quote(wanted)} lies below /proc or /dev/fd, where paths stand for open files`);
  }
  return cwd;
}
