import { answerFields, HelperTimeout, runHelper } from "./helper.ts";
import { errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

/** What is there; `"absent"` only where `"file"` or `"nothing"` was wanted. */
export type PathKind =
  | "absent"
  | "directory"
  | "file"
  | "character-device"
  | "block-device"
  | "socket"
  | "fifo"
  | "other";

/** What is found at a path; or why there is no telling. */
export type PathInfo =
  | {
      readonly path: string;
      readonly kind: PathKind;
      readonly device: { readonly major: number; readonly minor: number };
      /** Equal for two names of one file. */
      readonly identity: string;
    }
  | { readonly error: string };

/** What is wanted at a path, and the word of the helper for it. */
const wants = {
  /** To know what is there after symbolic links. */
  look: "-",
  /** The same; a missing one becomes a folder (0755), parents too. */
  folder: "c",
  /** Room for a file: its folders are made (0755), and what is in its place and neither file nor folder goes. */
  file: "f",
  /** That no file is there. */
  nothing: "u",
} as const;

export interface PathRequest {
  readonly path: string;
  readonly want: keyof typeof wants;
}

const kindByFormat: Readonly<Record<number, PathKind>> = {
  0: "absent",
  0o040000: "directory",
  0o100000: "file",
  0o020000: "character-device",
  0o060000: "block-device",
  0o140000: "socket",
  0o010000: "fifo",
};

const fieldsPerPath = 8;

function readInfo(fields: readonly string[]): PathInfo {
  const [error = "", mode = "", major = "", minor = "", path = "", ...identity] = fields;
  if (error !== "0") return { error: new SyscallError("open", Number(error)).code };
  // A link may lead to a name that is not UTF-8; it could not be passed on unchanged.
  if (path.includes("\uFFFD")) return { error: "EILSEQ" };
  return {
    path,
    kind: kindByFormat[Number(mode) & 0o170000] ?? "other",
    device: { major: Number(major), minor: Number(minor) },
    identity: identity.join(":"),
  };
}

/**
 * Looks at paths that are somebody else's, such as the sources of one container's mounts, and does there what is wanted.
 * All of them in one helper process, since any may lie on a dead file server.
 *
 * @returns one answer per path, in order; `path` is the real one, of a wanted file the one of its folder. `error` is an
 * errno name such as `"ENOENT"`; `"ETIMEDOUT"` for the first path that does not answer within `deadlineMs` (30 s without
 * one), and for those after it, which nobody has looked at.
 * @throws {SyscallError} EINVAL for a relative path or one with a NUL byte
 * @throws `options.signal.reason`
 */
export async function resolveForeignPaths(
  requests: readonly PathRequest[],
  options: { readonly signal: AbortSignal; readonly deadlineMs?: number },
): Promise<readonly PathInfo[]> {
  for (const { path } of requests) requireForeign(path);
  if (requests.length === 0) return [];
  const input = Buffer.from(requests.map(({ path, want }) => `${wants[want]}${path}\0`).join(""));
  const { answer, missing } = await runHelper("resolve", ["resolve"], { input, subject: "", ...options }).then(
    (whole) => ({ answer: whole, missing: "EIO" }),
    (thrown: unknown) => {
      if (thrown instanceof HelperTimeout) return { answer: thrown.answer, missing: "ETIMEDOUT" };
      throw thrown;
    },
  );
  const fields = answerFields(answer);
  return requests.map((_, index) => {
    const own = fields.slice(index * fieldsPerPath, (index + 1) * fieldsPerPath);
    return own.length === fieldsPerPath ? readInfo(own) : { error: missing };
  });
}

/**
 * The last bytes of somebody else's regular file, at most `most`; none of what is no such file. Follows no link at its
 * end.
 *
 * @throws {SyscallError} `open` ENOENT, ELOOP for a link
 * @throws a TimeoutError after `deadlineMs`
 */
export async function readForeignTail(
  path: string,
  options: { readonly most: number; readonly deadlineMs: number },
): Promise<Buffer> {
  requireForeign(path);
  return await runHelper("tail", ["tail", path, String(options.most)], {
    input: Buffer.alloc(0),
    subject: path,
    signal: new AbortController().signal,
    deadlineMs: options.deadlineMs,
  });
}

function requireForeign(path: string): void {
  if (requireAbsolute("open", path).includes("\0")) throw new SyscallError("open", errno.EINVAL, path);
}
