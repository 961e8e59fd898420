import { open } from "node:fs/promises";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { removeTree } from "./files.ts";
import { bindMount, mountOverlay, mountTmpfs, unmount } from "./mount.ts";
import { resolveMountSources } from "./mount-sources.ts";
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

describe("resolveMountSources", () => {
  test("follows links, makes missing folders where asked, and tells kinds", async () => {
    await makeFolders("real");
    await symlink("real", inside("link"));
    await symlink("nowhere/at/all", inside("dangling"));
    await writeFile(inside("file ü\n"), "");
    const paths = [
      { path: `${inside("link")}/`, create: false },
      { path: inside("link/new/deep"), create: true },
      { path: inside("link/missing"), create: false },
      { path: inside("dangling"), create: true },
      { path: inside("file ü\n"), create: true },
      { path: inside("file ü\n/x"), create: true },
      { path: "/dev/null", create: false },
    ];
    const infos = await resolveMountSources(paths, { signal });
    const device = { major: 0, minor: 0 };
    expect(infos).toEqual([
      { path: inside("real"), kind: "directory", device },
      { path: inside("real/new/deep"), kind: "directory", device },
      { error: "ENOENT" },
      { error: "ENOENT" },
      { path: inside("file ü\n"), kind: "file", device },
      { error: "ENOTDIR" },
      { path: "/dev/null", kind: "character-device", device: { major: 1, minor: 3 } },
    ]);
    expect((await stat(inside("real/new"))).mode & 0o7777).toBe(0o755);
    await expect(stat(inside("nowhere"))).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("refuses relative paths and NUL bytes, and asks nobody about nothing", async () => {
    await expect(resolveMountSources([{ path: "x", create: false }], { signal })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(resolveMountSources([{ path: "/x\0/y", create: true }], { signal })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(resolveMountSources([], { signal })).resolves.toEqual([]);
  });

  test("a path on a dead file server costs its caller the deadline and nobody else anything", async () => {
    await makeFolders("dead");
    const server = await open("/dev/fuse", "r+"); // a server that never answers
    const options = `fd=${server.fd},rootmode=40000,user_id=0,group_id=0`;
    const { job } = getMachine();
    const mounted = job("slow", undefined, (addon, token) =>
      addon.mount(token, "dead", inside("dead"), "fuse", options, 0),
    );
    await mounted;
    const stuck = Array.from({ length: 6 }, () =>
      resolveMountSources([{ path: inside("dead/volume"), create: true }], { signal: AbortSignal.timeout(300) }),
    );
    const live = resolveMountSources([{ path: directory, create: false }], { signal });
    await expect(live).resolves.toHaveLength(1);
    await expect(stat(directory)).resolves.toBeDefined();
    const results = await Promise.allSettled(stuck);
    expect(results.map((result) => result.status === "rejected" && (result.reason as Error).name)).toEqual(
      Array.from({ length: 6 }, () => "TimeoutError"),
    );
    await unmount(inside("dead"), { signal });
    await server.close();
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
