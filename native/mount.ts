import { getMachine } from "./events.ts";
import { runHelper } from "./helper.ts";
import { errno, requireAbsolute, SyscallError } from "./syscall-error.ts";

/** How mounts made below a bind mount spread. */
export type Propagation = "private" | "shared" | "slave";

/* mount_setattr(2) and mount(2) */
const attributeReadOnly = 1;
const propagationFlags: Readonly<Record<Propagation, number>> = {
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
};
const noSuid = 2;
const noDev = 4;
const noExec = 8;

/* A value in quotes may hold commas, which only security modules look for: context="…:c1,c2". */
const optionPattern = /^[a-z_]+(?:=(?:[^,\\"]*|"[^\\"]*"))?$/;

function joinOptions(options: readonly string[]): string {
  const wrong = options.find((option) => !optionPattern.test(option));
  if (wrong !== undefined) throw new SyscallError("mount", errno.EINVAL, wrong);
  return options.join(",");
}

/**
 * Mounts an overlay. Any layer paths go, however long: they enter as descriptors. Some 200 layers fit in what the kernel
 * takes.
 * @throws {SyscallError} `open` ENOENT for a missing layer, `mount` E2BIG for too many, or what mount(2) answers
 */
export async function mountOverlay(overlay: {
  /** Top first. */
  readonly lowerDirs: readonly string[];
  /** Without it (and `workDir`) the mount is read-only. */
  readonly upperDir?: string;
  readonly workDir?: string;
  readonly target: string;
  /** Further overlay options, such as `"volatile"` or `"metacopy=off"`. */
  readonly options?: readonly string[];
}): Promise<void> {
  const { lowerDirs, upperDir = null, workDir = null, target } = overlay;
  for (const path of [...lowerDirs, upperDir, workDir, target]) if (path !== null) requireAbsolute("mount", path);
  const options = joinOptions(overlay.options ?? []);
  await getMachine().job("slow", target, (addon, token) =>
    addon.mountOverlay(token, lowerDirs, target, upperDir, workDir, options),
  );
}

/**
 * Mounts a tmpfs, nosuid and nodev, and noexec unless `exec` is set.
 * @throws {SyscallError}
 */
export async function mountTmpfs(tmpfs: {
  readonly target: string;
  readonly sizeBytes: number | bigint;
  readonly mode: number;
  readonly exec?: boolean;
  readonly options?: readonly string[];
}): Promise<void> {
  const target = requireAbsolute("mount", tmpfs.target);
  const given = joinOptions(tmpfs.options ?? []);
  const data = [`size=${tmpfs.sizeBytes}`, `mode=${tmpfs.mode.toString(8)}`, ...(given === "" ? [] : [given])].join(
    ",",
  );
  const flags = noSuid | noDev | (tmpfs.exec ? 0 : noExec);
  await getMachine().job("slow", target, (addon, token) => addon.mount(token, "tmpfs", target, "tmpfs", data, flags));
}

/**
 * Makes a bind mount, which appears at its target complete, with all its attributes. Only for sources of our own: a
 * foreign one may hang. With `userNamespace` (the path of a pinned one) the mount is idmapped.
 * @throws {SyscallError}
 */
export async function bindMount(bind: {
  readonly source: string;
  readonly target: string;
  readonly readOnly?: boolean;
  readonly recursive?: boolean;
  readonly propagation?: Propagation;
  readonly userNamespace?: string;
}): Promise<void> {
  const source = requireAbsolute("open_tree", bind.source);
  const target = requireAbsolute("move_mount", bind.target);
  const attributes = bind.readOnly ? attributeReadOnly : 0;
  const propagation = bind.propagation === undefined ? 0 : propagationFlags[bind.propagation];
  await getMachine().job("slow", target, (addon, token) =>
    addon.mountBind(token, source, target, bind.userNamespace ?? null, bind.recursive ? 1 : 0, attributes, propagation),
  );
}

/**
 * Takes everything mounted at a place off it, at once (MNT_DETACH), never through a symbolic link. Idempotent. Runs in
 * the helper, since looking the place up may hang.
 * @throws {SyscallError}
 * @throws `signal.reason`, or a TimeoutError after 30 s
 */
export async function unmount(target: string, options: { readonly signal: AbortSignal }): Promise<void> {
  await runHelper("umount", ["umount", requireAbsolute("umount2", target)], {
    input: Buffer.alloc(0),
    subject: target,
    signal: options.signal,
  });
}
