import { runHelper, answerFields } from "./helper.ts";
import { SyscallError, errno } from "./syscall-error.ts";

/** What a mount source turned out to be. */
export type SourceKind = "directory" | "file" | "character-device" | "block-device" | "socket" | "fifo" | "other";

/** A mount source after its symbolic links; or why it could not be looked at. */
export type SourceInfo =
  | {
      readonly path: string;
      readonly kind: SourceKind;
      readonly device: { readonly major: number; readonly minor: number };
    }
  | { readonly error: string };

const kindByFormat: Readonly<Record<number, SourceKind>> = {
  0o040000: "directory",
  0o100000: "file",
  0o020000: "character-device",
  0o060000: "block-device",
  0o140000: "socket",
  0o010000: "fifo",
};

const fieldsPerSource = 5;

function readSource(fields: readonly string[]): SourceInfo {
  const [error = "", mode = "", major = "", minor = "", path = ""] = fields;
  if (error !== "0") return { error: new SyscallError("open", Number(error)).code };
  // A link may lead to a name that is not UTF-8; it could not be passed on unchanged.
  if (path.includes("\uFFFD")) return { error: "EILSEQ" };
  return {
    path,
    kind: kindByFormat[Number(mode) & 0o170000] ?? "other",
    device: { major: Number(major), minor: Number(minor) },
  };
}

/**
 * Looks at the host paths of one container's mounts: follows links, makes a missing path a folder (0755, parents too)
 * where `create` says so, and tells what it is. All of them in one helper process, since any may lie on a dead file
 * server: the caller's signal, or 30 s, ends it.
 *
 * @returns one answer per path, in order; `error` is an errno name such as `"ENOENT"`.
 * @throws {SyscallError} EINVAL for a relative path or one with a NUL byte
 */
export async function resolveMountSources(
  paths: readonly { readonly path: string; readonly create: boolean }[],
  options: { readonly signal: AbortSignal },
): Promise<readonly SourceInfo[]> {
  for (const { path } of paths)
    if (!path.startsWith("/") || path.includes("\0")) throw new SyscallError("open", errno.EINVAL, path);
  if (paths.length === 0) return [];
  const request = paths.map(({ path, create }) => `${create ? "c" : "-"}${path}\0`).join("");
  const answer = await runHelper("resolve", ["resolve"], {
    input: Buffer.from(request),
    subject: "mount sources",
    signal: options.signal,
  });
  const fields = answerFields(answer);
  if (fields.length !== paths.length * fieldsPerSource) throw new SyscallError("berth-helper", errno.EIO);
  return paths.map((_, index) => readSource(fields.slice(index * fieldsPerSource, (index + 1) * fieldsPerSource)));
}
