import { Code, CriError } from "../../cri-api/index.ts";

/** What the text of a failed runtime is read for. */
export interface FailureContext {
  /** What could not be done, on which quoted id: `cannot create container "x"`. */
  readonly what: string;
  /** The executable that the spec names, to be told apart from files that the runtime needs itself. */
  readonly executable?: string | undefined;
  readonly imageName?: string | undefined;
  readonly memoryLimitBytes?: number | undefined;
  /** Directories of ours, whose names are nobody's business. */
  readonly hidden: readonly string[];
  readonly rootfs?: string | undefined;
  readonly cause?: unknown;
}

const maxReasonLength = 512;

/** Words of crun and runc that tell whose fault it is; the first that matches decides. */
const meanings: readonly {
  readonly pattern: RegExp;
  readonly code: Code;
  readonly reason?: (about: Readonly<Record<"executable" | "image" | "memory", string>>) => string;
}[] = [
  {
    pattern: /apparmor.*no such file|apparmor.*not found/i, // before the words of a missing executable, which it has too
    code: Code.FailedPrecondition,
    reason: () => "its AppArmor profile is not loaded",
  },
  {
    pattern: /executable file .*not found|stat [^:]+: no such file or directory|exec: .*no such file or directory/i,
    code: Code.InvalidArgument,
    reason: ({ executable, image }) => `${executable} not found${image}`,
  },
  {
    pattern: /open executable: (permission denied|operation not permitted)|exec: .*permission denied|is a directory/i,
    code: Code.InvalidArgument,
    reason: ({ executable, image }) => `${executable}${image} cannot be executed: permission denied`,
  },
  {
    pattern: /memory limit could be too low|unable to set memory limit/i,
    code: Code.InvalidArgument,
    reason: ({ memory }) => `its memory limit${memory} is too low for it to start`,
  },
  { pattern: /cpuset\.(?:cpus|mems)|mount.*not a directory/i, code: Code.InvalidArgument },
  { pattern: /chdir|to cwd/i, code: Code.InvalidArgument },
  { pattern: /exec format error/i, code: Code.InvalidArgument },
  {
    pattern: /not running|stopped container|does not exist|already exists|has stopped|is paused/i,
    code: Code.FailedPrecondition,
  },
  {
    pattern: /No such process|\/status`: No such file/i,
    code: Code.FailedPrecondition,
    reason: () => "it is not running",
  },
  { pattern: /exec\.fifo|already running/i, code: Code.FailedPrecondition, reason: () => "it is not in created state" },
];

/** The error that a caller sees for a runtime or monitor that said why it failed. */
export function runtimeFailure(output: string, context: FailureContext): CriError {
  const message = lastMessage(output);
  const meaning = meanings.find(({ pattern }) => pattern.test(message));
  const told = meaning?.reason?.(wordsOf(context)) ?? cleanReason(message, context);
  return new CriError(meaning?.code ?? Code.Internal, `${context.what}: ${told}`, { cause: context.cause });
}

function wordsOf({
  executable,
  imageName,
  memoryLimitBytes,
}: FailureContext): Record<"executable" | "image" | "memory", string> {
  return {
    executable: `executable "${quotable(executable ?? "")}"`,
    image: imageName === undefined ? "" : ` in image "${quotable(imageName)}"`,
    memory: memoryLimitBytes === undefined ? "" : ` of ${memoryLimitBytes} bytes`,
  };
}

/** The last error line of a runtime, without its wrapping and log fields. */
function lastMessage(output: string): string {
  const lines = output
    .split("\n")
    .map(messageOf)
    .filter(({ text }) => text !== "");
  const errors = lines.filter(({ level }) => level === "error" || level === "fatal");
  return ((errors.length > 0 ? errors : lines).at(-1)?.text ?? "").replace(wrapping, "");
}

/** A runtime's words without our own directories and control characters, and short. */
function cleanReason(message: string, context: Pick<FailureContext, "hidden" | "rootfs">): string {
  let reason = message;
  if (context.rootfs !== undefined && context.rootfs !== "/") reason = reason.replaceAll(context.rootfs, "");
  for (const directory of context.hidden) reason = hide(reason, directory);
  reason = quotable(reason).trim();
  return reason === "" ? "the runtime gave no reason" : reason.slice(0, maxReasonLength);
}

/** runc tells the whole way down; only the end of it means something to a caller. */
const wrapping =
  /^(?:runc (?:create|start|run|exec) failed: |exec failed: |unable to start container process: |error during container init: |container_linux\.go:\d+: [^:]+: |process_linux\.go:\d+: [^:]+: )+/;

/** A log line of runc (`time=… level=error msg="…"`) or JSON, else the line itself. */
function messageOf(line: string): { readonly level: string | undefined; readonly text: string } {
  const logfmt = /^time="[^"]*" level=(\w+) msg=(".*")$/.exec(line.trim());
  if (logfmt?.[2] === undefined) return { level: undefined, text: line.trim() };
  return { level: logfmt[1], text: unquote(logfmt[2]) };
}

function unquote(quoted: string): string {
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted.slice(1, -1);
  }
}

/** Of a path below the directory only the last name is left. */
function hide(text: string, directory: string): string {
  if (directory.length < 2) return text;
  const escaped = directory.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return text.replaceAll(new RegExp(`${escaped}(?:/[^\\s\`"':]*)?`, "g"), (path) =>
    path.slice(path.lastIndexOf("/") + 1),
  );
}

function quotable(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, " ").slice(0, 4 * maxReasonLength);
}
