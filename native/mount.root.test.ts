import { open } from "node:fs/promises";
import { link, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { removeTree } from "./files.ts";
import { bindMount, mountOverlay, mountTmpfs, unmount } from "./mount.ts";
import { type PathRequest, readForeignTail, resolveForeignPaths } from "./foreign-paths.ts";
import { readMountTable } from "./mount-table.ts";
import { getMachine } from "./events.ts";
import { syscalls } from "./syscalls.ts";

let directory: string;
const inside = (name: string): string => join(directory, name);
const signal = new AbortController().signal;

async function mountsBelow(path: string): Promise<readonly string[]> {
  return (await readMountTable()).map(({ mountPoint }) => mountPoint).filter((point) => point.startsWith(path));
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-mount-"));
});
afterEach(async () => {
  for (const point of (await mountsBelow(directory)).toReversed()) await unmount(point, { signal });
  await expect(mountsBelow(directory)).resolves.toEqual([]);
  await rm(directory, { recursive: true });
});

async function makeFolders(...names: readonly string[]): Promise<void> {
  await Promise.all(names.map((name) => mkdir(inside(name), { recursive: true })));
}

describe("mountOverlay", () => {
  test("stacks the first lower directory on top and writes to the upper one", async () => {
    await makeFolders("top", "bottom", "upper", "work", "target");
    await writeFile(inside("top/file"), "top");
    await writeFile(inside("bottom/file"), "bottom");
    await writeFile(inside("bottom/other"), "bottom");
    await mountOverlay({
      lowerDirs: [inside("top"), inside("bottom")],
      upperDir: inside("upper"),
      workDir: inside("work"),
      target: inside("target"),
    });
    await expect(readFile(inside("target/file"), "utf8")).resolves.toBe("top");
    await expect(readFile(inside("target/other"), "utf8")).resolves.toBe("bottom");
    await writeFile(inside("target/new"), "new");
    await expect(readFile(inside("upper/new"), "utf8")).resolves.toBe("new");
  });

  test("lets commas into an option only between quotes", async () => {
    await makeFolders("lower", "target");
    const mount = (option: string) =>
      mountOverlay({ lowerDirs: [inside("lower"), inside("target")], target: inside("target"), options: [option] });
    for (const option of ["context=a,b", 'context="a"b,c"', 'context="a\\",b"', "lowerdir=/,ro"]) {
      await expect(mount(option)).rejects.toMatchObject({ code: "EINVAL", path: option });
    }
    // Without a policy the kernel knows no contexts; it is its refusal, not ours.
    await expect(mount('context="u:r:t:s0:c1,c2"')).rejects.toMatchObject({ syscall: "mount", path: inside("target") });
  });

  test("takes 120 layers with names of 200 characters, commas, colons and backslashes", async () => {
    const layers = Array.from({ length: 120 }, (_, index) => inside(`${index}:,\\${"x".repeat(200)}`));
    await Promise.all(layers.map((layer) => mkdir(layer)));
    await writeFile(join(layers.at(-1)!, "deepest"), "");
    await makeFolders("upper,a=b\\:c", "work,\\x", "target");
    await mountOverlay({
      lowerDirs: layers,
      upperDir: inside("upper,a=b\\:c"),
      workDir: inside("work,\\x"),
      target: inside("target"),
      options: ["metacopy=off"],
    });
    await writeFile(inside("target/new"), "");
    await expect(readdir(inside("target"))).resolves.toEqual(["deepest", "new"]);
    await expect(readdir(inside("upper,a=b\\:c"))).resolves.toEqual(["new"]);
  });

  test("is read-only without an upper directory", async () => {
    await makeFolders("a", "b", "target");
    await mountOverlay({ lowerDirs: [inside("a"), inside("b")], target: inside("target") });
    await expect(writeFile(inside("target/x"), "")).rejects.toMatchObject({ code: "EROFS" });
  });

  test("refuses a missing layer, too many layers, and an option that is two", async () => {
    await makeFolders("a", "target");
    const target = inside("target");
    const lower = inside("a");
    await expect(mountOverlay({ lowerDirs: [lower, inside("gone")], target })).rejects.toMatchObject({
      syscall: "open",
      code: "ENOENT",
    });
    await expect(mountOverlay({ lowerDirs: Array.from({ length: 400 }, () => lower), target })).rejects.toMatchObject({
      code: "E2BIG",
    });
    await expect(
      mountOverlay({ lowerDirs: [lower, lower], target, options: ["volatile,upperdir=/etc"] }),
    ).rejects.toMatchObject({ code: "EINVAL" });
    await expect(mountOverlay({ lowerDirs: ["a"], target })).rejects.toMatchObject({ code: "EINVAL" });
  });
});

test("mountTmpfs has the size and mode asked and runs no programs", async () => {
  await makeFolders("shm");
  await mountTmpfs({ target: inside("shm"), sizeBytes: 64n * 1024n * 1024n, mode: 0o1777 });
  const entry = (await readMountTable()).find(({ mountPoint }) => mountPoint === inside("shm"));
  expect(entry).toMatchObject({ fsType: "tmpfs", superOptions: expect.arrayContaining(["size=65536k"]) });
  expect(entry?.options).toEqual(expect.arrayContaining(["nosuid", "nodev", "noexec"]));
  expect((await stat(inside("shm"))).mode & 0o7777).toBe(0o1777);
});

describe("bindMount", () => {
  test("shows the source, read-only if asked, below too", async () => {
    await makeFolders("source/sub", "target");
    await mountTmpfs({ target: inside("source/sub"), sizeBytes: 4096, mode: 0o755 });
    await writeFile(inside("source/sub/file"), "");
    await bindMount({ source: inside("source"), target: inside("target"), readOnly: true, recursive: true });
    await expect(writeFile(inside("target/x"), "")).rejects.toMatchObject({ code: "EROFS" });
    await expect(writeFile(inside("target/sub/file"), "x")).rejects.toMatchObject({ code: "EROFS" });
    await writeFile(inside("source/sub/file"), "still writable");
  });

  test("spreads mounts as asked", async () => {
    await makeFolders("source", "shared", "slave", "private");
    await bindMount({ source: inside("source"), target: inside("shared"), propagation: "shared" });
    await bindMount({ source: inside("shared"), target: inside("slave"), propagation: "slave" });
    await bindMount({ source: inside("source"), target: inside("private"), propagation: "private" });
    const table = await readMountTable();
    const find = (name: string) => table.find(({ mountPoint }) => mountPoint === inside(name));
    expect(find("shared")?.shared).toBeTypeOf("number");
    expect(find("slave")).toMatchObject({ master: find("shared")?.shared, shared: undefined });
    expect(find("private")).toMatchObject({ master: undefined, shared: undefined });
  });

  test("binds single files and refuses what is not there", async () => {
    await writeFile(inside("a"), "a");
    await writeFile(inside("b"), "b");
    await bindMount({ source: inside("a"), target: inside("b") });
    await expect(readFile(inside("b"), "utf8")).resolves.toBe("a");
    await expect(bindMount({ source: inside("none"), target: inside("b") })).rejects.toMatchObject({
      syscall: "open_tree",
      code: "ENOENT",
    });
  });
});

describe("unmount", () => {
  test("takes off everything stacked on a place, busy or not, and again nothing", async () => {
    await makeFolders("t");
    for (let count = 0; count < 3; count++) await mountTmpfs({ target: inside("t"), sizeBytes: 4096, mode: 0o755 });
    const busy = await open(inside("t"));
    await unmount(inside("t"), { signal });
    await unmount(inside("t"), { signal });
    await unmount(inside("absent/at/all"), { signal });
    await busy.close();
    await expect(mountsBelow(directory)).resolves.toEqual([]);
  });

  test("does not go through a symbolic link", async () => {
    await makeFolders("t");
    await mountTmpfs({ target: inside("t"), sizeBytes: 4096, mode: 0o755 });
    await symlink(inside("t"), inside("link"));
    await unmount(inside("link"), { signal });
    await expect(mountsBelow(directory)).resolves.toEqual([inside("t")]);
  });
});

test("removeTree stops at a mount point and keeps what is mounted", async () => {
  await makeFolders("tree/a/mounted", "tree/b", "volume");
  await writeFile(inside("volume/precious"), "");
  await bindMount({ source: inside("volume"), target: inside("tree/a/mounted") });
  await expect(removeTree(inside("tree"))).rejects.toMatchObject({ code: "EBUSY" });
  await expect(removeTree(inside("tree/a/mounted"))).rejects.toMatchObject({ code: "EXDEV" });
  await expect(readdir(inside("volume"))).resolves.toEqual(["precious"]);
  await unmount(inside("tree/a/mounted"), { signal });
  await removeTree(inside("tree"));
  await expect(readdir(directory)).resolves.toEqual(["volume"]);
});

describe("resolveForeignPaths", () => {
  test("follows links, makes missing folders where asked, and tells kinds", async () => {
    await makeFolders("real");
    await symlink("real", inside("link"));
    await symlink("nowhere/at/all", inside("dangling"));
    await writeFile(inside("file ü\n"), "");
    const paths: readonly PathRequest[] = [
      { path: `${inside("link")}/`, want: "look" },
      { path: inside("link/new/deep"), want: "folder" },
      { path: inside("link/missing"), want: "look" },
      { path: inside("dangling"), want: "folder" },
      { path: inside("file ü\n"), want: "folder" },
      { path: inside("file ü\n/x"), want: "folder" },
      { path: "/dev/null", want: "look" },
    ];
    const infos = await resolveForeignPaths(paths, { signal });
    const device = { major: 0, minor: 0 };
    const identity = expect.stringMatching(/^\d+:\d+:\d+$/u);
    expect(infos).toEqual([
      { path: inside("real"), kind: "directory", device, identity },
      { path: inside("real/new/deep"), kind: "directory", device, identity },
      { error: "ENOENT" },
      { error: "ENOENT" },
      { path: inside("file ü\n"), kind: "file", device, identity },
      { error: "ENOTDIR" },
      { path: "/dev/null", kind: "character-device", device: { major: 1, minor: 3 }, identity },
    ]);
    expect((await stat(inside("real/new"))).mode & 0o7777).toBe(0o755);
    await expect(stat(inside("nowhere"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("makes room for a file, and leaves one that is there", async () => {
    await makeFolders("logs/directory");
    await writeFile(inside("logs/kept"), "kept");
    await writeFile(inside("precious"), "kept");
    await symlink("../precious", inside("logs/link"));
    const names = ["new/deep/0.log", "logs/kept", "logs/link", "logs/directory", "precious/0.log"];
    const requests = names.map((name) => ({ path: inside(name), want: "file" }) as const);
    expect(await resolveForeignPaths(requests, { signal })).toMatchObject([
      { kind: "absent", path: inside("new/deep") },
      { kind: "file", path: inside("logs") },
      { kind: "absent", path: inside("logs") },
      { error: "EISDIR" },
      { error: "ENOTDIR" },
    ]);
    expect((await stat(inside("new/deep"))).mode & 0o7777).toBe(0o755);
    await expect(readdir(inside("logs"))).resolves.toEqual(["directory", "kept"]);
    await expect(readFile(inside("logs/kept"), "utf8")).resolves.toBe("kept");
    await expect(readFile(inside("precious"), "utf8")).resolves.toBe("kept");
  });

  test("removes a file where none is wanted, and no folder", async () => {
    await makeFolders("folder");
    await writeFile(inside("file"), "");
    const requests = ["file", "absent", "folder"].map((name) => ({ path: inside(name), want: "nothing" }) as const);
    expect(await resolveForeignPaths(requests, { signal })).toMatchObject([
      { kind: "absent" },
      { kind: "absent" },
      { error: "EISDIR" },
    ]);
    await expect(readdir(directory)).resolves.toEqual(["folder"]);
  });

  test("tells two names of one file from two files", async () => {
    await writeFile(inside("one"), "");
    await link(inside("one"), inside("same"));
    await writeFile(inside("other"), "");
    const requests = ["one", "same", "other"].map((name) => ({ path: inside(name), want: "look" }) as const);
    const [one, same, other] = (await resolveForeignPaths(requests, { signal })).map((info) =>
      "error" in info ? info.error : info.identity,
    );
    expect(same).toBe(one);
    expect(other).not.toBe(one);
  });

  test("refuses relative paths and NUL bytes, and asks nobody about nothing", async () => {
    await expect(resolveForeignPaths([{ path: "x", want: "look" }], { signal })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(resolveForeignPaths([{ path: "/x\0/y", want: "folder" }], { signal })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(resolveForeignPaths([], { signal })).resolves.toEqual([]);
  });

  /** Mounts a file system at "dead" whose server never answers. */
  async function mountDead(): Promise<AsyncDisposable> {
    await makeFolders("dead");
    const server = await open("/dev/fuse", "r+");
    const options = `fd=${server.fd},rootmode=40000,user_id=0,group_id=0`;
    const { job } = getMachine();
    await job("slow", undefined, (addon, token) => addon.mount(token, "dead", inside("dead"), "fuse", options, 0));
    return {
      async [Symbol.asyncDispose]() {
        await unmount(inside("dead"), { signal });
        await server.close();
      },
    };
  }

  test("a path on a dead file server costs its caller the deadline and nobody else anything", async () => {
    await using _dead = await mountDead();
    const stuck = Array.from({ length: 6 }, () =>
      resolveForeignPaths([{ path: inside("dead/volume"), want: "folder" }], { signal: AbortSignal.timeout(300) }),
    );
    const live = resolveForeignPaths([{ path: directory, want: "look" }], { signal });
    await expect(live).resolves.toHaveLength(1);
    await expect(stat(directory)).resolves.toBeDefined();
    const results = await Promise.allSettled(stuck);
    expect(results.map((result) => result.status === "rejected" && (result.reason as Error).name)).toEqual(
      Array.from({ length: 6 }, () => "TimeoutError"),
    );
  });

  test("the deadline tells which path hangs, whatever is wanted there", async () => {
    await using _dead = await mountDead();
    const wants = ["look", "folder", "file", "nothing"] as const;
    const answers = wants.map(async (want) => {
      const hangs = { path: inside("dead/0.log"), want };
      const requests = [{ path: directory, want: "look" } as const, hangs, { path: "/", want: "look" } as const];
      return await resolveForeignPaths(requests, { signal, deadlineMs: 3_000 });
    });
    for (const answer of await Promise.all(answers))
      expect(answer).toMatchObject([{ path: directory }, { error: "ETIMEDOUT" }, { error: "ETIMEDOUT" }]);
  });

  test("reading the end of a file on a dead file server takes no longer than its deadline", async () => {
    await using _dead = await mountDead();
    await expect(readForeignTail(inside("dead/0.log"), { most: 10, deadlineMs: 300 })).rejects.toMatchObject({
      name: "TimeoutError",
    });
  });
});

test("device nodes, owners and trusted attributes are set inside the tree only", async () => {
  const fd = syscalls.openDirectory(directory);
  syscalls.mknodat(fd, "null", 0o020666, { major: 1, minor: 3 });
  syscalls.mknodat(fd, "whiteout", 0o020000, { major: 0, minor: 0 });
  expect(syscalls.fstatat(fd, "null")).toMatchObject({ rdevMajor: 1, rdevMinor: 3 });
  expect(syscalls.fstatat(fd, "whiteout")).toMatchObject({ mode: 0o020000, rdevMajor: 0, rdevMinor: 0 });
  syscalls.symlinkat("/etc/passwd", fd, "link");
  syscalls.fchownat(fd, "link", { uid: 70_000, gid: 4_000_000_000 });
  expect(syscalls.fstatat(fd, "link")).toMatchObject({ uid: 70_000, gid: 4_000_000_000 });
  expect((await stat("/etc/passwd")).uid).toBe(0);
  syscalls.mkdirat(fd, "opaque", 0o755);
  const opaque = syscalls.openat2InRoot(fd, "opaque", 0o10000000);
  syscalls.setxattr(opaque, "trusted.overlay.opaque", Buffer.from("y"));
  expect(syscalls.getxattr(opaque, "trusted.overlay.opaque")?.toString()).toBe("y");
  expect(syscalls.getxattr(opaque, "trusted.absent")).toBeUndefined();
  expect(syscalls.listxattr(opaque)).toEqual(["trusted.overlay.opaque"]);
  syscalls.setxattrat(fd, "link", { name: "trusted.of-the-link", value: Buffer.alloc(0) });
  syscalls.fchownat(opaque, "", { uid: 1, gid: 2 });
  expect(syscalls.fstatat(opaque, "")).toMatchObject({ uid: 1, gid: 2 });
  syscalls.close(opaque);
  syscalls.close(fd);
});
