import { constants } from "node:fs";
import { link, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, statfs, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  makeFolders,
  measureTree,
  mkdirInRoot,
  readFileBounded,
  readFileInRoot,
  readFilesBounded,
  removeFiles,
  removeTree,
  resolveInRoot,
  spreadFolders,
  which,
  writeFifo,
  writeFileAtomically,
} from "./files.ts";
import { syscalls } from "./syscalls.ts";

vi.setConfig({ testTimeout: 30_000 }); // trees of thousands of folders, on whatever disk

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "berth-files-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});
const inside = (name: string): string => join(directory, name);

function makeFifo(name: string): void {
  const fd = syscalls.openDirectory(directory);
  syscalls.mknodat(fd, name, 0o010600, { major: 0, minor: 0 });
  syscalls.close(fd);
}

describe("writeFileAtomically", () => {
  test("replaces content and mode and leaves nothing beside it", async () => {
    await writeFileAtomically(inside("state.json"), "one");
    expect((await stat(inside("state.json"))).mode & 0o7777).toBe(0o600);
    await writeFileAtomically(inside("state.json"), Buffer.from("two"), { mode: 0o644 });
    await expect(readFile(inside("state.json"), "utf8")).resolves.toBe("two");
    expect((await stat(inside("state.json"))).mode & 0o7777).toBe(0o644);
    await expect(readdir(directory)).resolves.toEqual(["state.json"]);
  });

  test.each(["power cut", "kill"] as const)("keeps the last of many writers whole (%s)", async (survives) => {
    const texts = Array.from({ length: 40 }, (_, index) => String(index).repeat(10_000));
    await Promise.all(texts.map((text) => writeFileAtomically(inside("contended"), text, { survives })));
    expect(texts).toContain(await readFile(inside("contended"), "utf8"));
    await expect(readdir(directory)).resolves.toEqual(["contended"]);
  });

  test("fails without the folder, and cleans up when it cannot rename", async () => {
    await expect(writeFileAtomically(inside("none/x"), "")).rejects.toMatchObject({ code: "ENOENT", syscall: "open" });
    await mkdir(inside("folder/full"), { recursive: true });
    await expect(writeFileAtomically(inside("folder"), "")).rejects.toMatchObject({ syscall: "rename" });
    await expect(readdir(directory)).resolves.toEqual(["folder"]);
  });
});

describe("makeFolders", () => {
  test("makes each with its mode, whatever the umask, parents first", async () => {
    await makeFolders([
      { path: inside("a"), mode: 0o1777 },
      { path: inside("a/b"), mode: 0o710, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 },
    ]);
    expect((await stat(inside("a"))).mode & 0o7777).toBe(0o1777);
    expect(await stat(inside("a/b"))).toMatchObject({
      mode: 0o40710,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });
  });

  test("stops at the first that it cannot make, and says which", async () => {
    const folders = ["one", "one", "two"].map((name) => ({ path: inside(name), mode: 0o700 }));
    await expect(makeFolders(folders)).rejects.toMatchObject({ syscall: "mkdir", code: "EEXIST", path: inside("one") });
    await expect(readdir(directory)).resolves.toEqual(["one"]);
    await expect(makeFolders([{ path: "here", mode: 0o700 }])).rejects.toMatchObject({ code: "EINVAL" });
  });
});

describe("removeFiles", () => {
  test("removes what is there and does not miss what is not", async () => {
    await Promise.all(["a", "b", "kept"].map((name) => writeFile(inside(name), "")));
    await symlink("kept", inside("link"));
    await removeFiles(["a", "none", "b", "link"].map(inside));
    await expect(readdir(directory)).resolves.toEqual(["kept"]);
  });

  test("tries all, and says which it could not remove", async () => {
    await mkdir(inside("folder"));
    await writeFile(inside("file"), "");
    const removed = removeFiles([inside("folder"), inside("file")]);
    await expect(removed).rejects.toMatchObject({ syscall: "unlink", code: "EISDIR", path: inside("folder") });
    await expect(readdir(directory)).resolves.toEqual(["folder"]);
  });
});

describe("bounded reads", () => {
  test("read a file whole up to the limit and refuse more", async () => {
    await writeFile(inside("f"), "x".repeat(5000));
    await expect(readFileBounded(inside("f"), 5000)).resolves.toHaveLength(5000);
    await expect(readFileBounded(inside("f"), 4999)).rejects.toMatchObject({ code: "EFBIG" });
    await writeFile(inside("empty"), "");
    await expect(readFileBounded(inside("empty"), 0)).resolves.toEqual(Buffer.alloc(0));
  });

  test("tell absence from what is no regular file", async () => {
    await expect(readFileBounded(inside("absent"), 1)).resolves.toBeUndefined();
    await expect(readFileBounded(directory, 1)).rejects.toMatchObject({ code: "EISDIR" });
    makeFifo("fifo");
    await expect(readFileBounded(inside("fifo"), 1)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(readFileBounded("/proc/self/stat", 4096)).resolves.toBeInstanceOf(Buffer);
  });

  test("read many at once, each for itself", async () => {
    await writeFile(inside("a"), "first");
    await writeFile(inside("b"), "");
    await writeFile(inside("large"), "0123456789");
    const read = await readFilesBounded([inside("a"), inside("absent"), inside("b"), inside("large"), inside("a")], 9);
    expect(read.map((bytes) => bytes?.toString())).toEqual(["first", undefined, "", undefined, "first"]);
    await expect(readFilesBounded([], 9)).resolves.toEqual([]);
  });
});

describe("inside a root", () => {
  test("links resolve as if the root were /", async () => {
    await mkdir(inside("root/etc"), { recursive: true });
    await writeFile(inside("root/etc/passwd"), "in the root");
    await symlink("/etc/passwd", inside("root/absolute"));
    await symlink("../../../../../etc/passwd", inside("root/etc/relative"));
    await symlink("/proc/self/root/etc/passwd", inside("root/magic"));
    const read = async (path: string) => (await readFileInRoot(inside("root"), path, { maxBytes: 100 }))?.toString();
    await expect(read("/absolute")).resolves.toBe("in the root");
    await expect(read("etc/relative")).resolves.toBe("in the root");
    await expect(read("../../etc/passwd")).resolves.toBe("in the root");
    await expect(read("magic")).resolves.toBeUndefined();
    await expect(read("etc/passwd/below")).resolves.toBeUndefined();
  });

  test("a FIFO is refused without waiting for its writer", async () => {
    makeFifo("passwd");
    await expect(readFileInRoot(directory, "passwd", { maxBytes: 1 })).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("a path is resolved to where it leads, links and all", async () => {
    await mkdir(inside("root/etc"), { recursive: true });
    await writeFile(inside("root/etc/file"), "");
    await symlink("/etc", inside("root/link"));
    await symlink("../../../etc/file", inside("root/up"));
    await symlink("loop", inside("root/loop"));
    const resolve = (path: string) => resolveInRoot(inside("root"), path);
    await expect(resolve("link/file")).resolves.toBe(inside("root/etc/file"));
    await expect(resolve("up")).resolves.toBe(inside("root/etc/file"));
    await expect(resolve("../..")).resolves.toBe(inside("root"));
    await expect(resolve("etc/none")).resolves.toBeUndefined();
    await expect(resolve("etc/file/below")).resolves.toBeUndefined();
    await expect(resolve("loop")).rejects.toMatchObject({ code: "ELOOP" });
  });

  test("a link to itself is an error", async () => {
    await symlink("loop", inside("loop"));
    await expect(readFileInRoot(directory, "loop", { maxBytes: 1 })).rejects.toMatchObject({ code: "ELOOP" });
  });

  test("missing folders are made behind links, never outside", async () => {
    const outside = await mkdtemp(join(tmpdir(), "berth-outside-"));
    await mkdir(inside("root/real"), { recursive: true });
    await symlink("/real", inside("root/link"));
    await symlink(outside, inside("root/escape"));
    await mkdirInRoot(inside("root"), "/link//a/b/", { mode: 0o750 });
    expect((await stat(inside("root/real/a/b"))).mode & 0o7777).toBe(0o750);
    await mkdirInRoot(inside("root"), "/link/a/b", { mode: 0o700 });
    expect((await stat(inside("root/real/a/b"))).mode & 0o7777).toBe(0o750);
    await expect(mkdirInRoot(inside("root"), "escape/x", { mode: 0o755 })).rejects.toMatchObject({ code: "ENOENT" });
    await expect(mkdirInRoot(inside("root"), "a/../b", { mode: 0o755 })).rejects.toMatchObject({ code: "EINVAL" });
    await expect(readdir(outside)).resolves.toEqual([]);
    await rm(outside, { recursive: true });
  });

  test("a file in the way is an error", async () => {
    await writeFile(inside("file"), "");
    await expect(mkdirInRoot(directory, "file/x", { mode: 0o755 })).rejects.toMatchObject({ code: "ENOTDIR" });
  });
});

describe("removeTree", () => {
  test("removes files, links and folders, and does not mind absence", async () => {
    await mkdir(inside("tree/a/b/c"), { recursive: true });
    await writeFile(inside("tree/a/file"), "");
    await writeFile(inside("kept"), "");
    await symlink(inside("kept"), inside("tree/a/b/link"));
    await symlink(directory, inside("tree/up"));
    await removeTree(`${inside("tree")}/`);
    await removeTree(inside("tree"));
    await removeTree(inside("tree/below/nothing"));
    await expect(readdir(directory)).resolves.toEqual(["kept"]);
    await removeTree(inside("kept"));
    await expect(readdir(directory)).resolves.toEqual([]);
  });

  test("a link as the root goes itself", async () => {
    await mkdir(inside("real"));
    await writeFile(inside("real/file"), "");
    await symlink(inside("real"), inside("link"));
    await removeTree(inside("link"));
    await expect(readdir(inside("real"))).resolves.toEqual(["file"]);
  });

  test("manages a tree deeper than any path or descriptor table", async () => {
    const { O_DIRECTORY, O_RDONLY } = constants;
    await mkdir(inside("deep"));
    let fd = syscalls.openDirectory(inside("deep"));
    for (let depth = 0; depth < 3000; depth++) {
      syscalls.mkdirat(fd, "folder", 0o700);
      syscalls.mkdirat(fd, "beside", 0o000);
      syscalls.symlinkat("/", fd, "link");
      const below = syscalls.openat2InRoot(fd, "folder", O_RDONLY | O_DIRECTORY);
      syscalls.close(fd);
      fd = below;
    }
    syscalls.close(fd);
    await removeTree(inside("deep"));
    await expect(readdir(directory)).resolves.toEqual([]);
  });

  test("manages wide folders of folders", async () => {
    await mkdir(inside("wide"));
    const fd = syscalls.openDirectory(inside("wide"));
    for (let count = 0; count < 300; count++) {
      syscalls.mkdirat(fd, `d${count}`, 0o700);
      syscalls.mkdirat(fd, `d${count}/e`, 0o700);
      for (const name of ["f", "e/g", "e/h"])
        syscalls.mknodat(fd, `d${count}/${name}`, 0o100600, { major: 0, minor: 0 });
    }
    syscalls.close(fd);
    await removeTree(inside("wide"));
    await expect(readdir(directory)).resolves.toEqual([]);
  });

  test.each(["/", "//", "relative", "/tmp/..", "/tmp/."])("refuses %j", async (path) => {
    await expect(removeTree(path)).rejects.toMatchObject({ code: "EINVAL" });
  });
});

describe("measureTree", () => {
  test("counts blocks and inodes, hard links once, and follows no link", async () => {
    await mkdir(inside("a/b/c"), { recursive: true });
    await writeFile(inside("a/file"), Buffer.alloc(10_000, 1));
    for (let count = 0; count < 100; count++) {
      await writeFile(inside(`a/b/${count}`), "x");
      await link(inside(`a/b/${count}`), inside(`a/b/c/${count}`));
    }
    await link(inside("a/file"), inside("a/b/again"));
    await symlink("/", inside("a/root"));
    const names = ["", "a", "a/b", "a/b/c", "a/file", "a/root", ...Array.from({ length: 100 }, (_, i) => `a/b/${i}`)];
    const blocks = await Promise.all(names.map(async (name) => (await lstat(inside(name))).blocks));
    const usedBytes = blocks.reduce((sum, count) => sum + count * 512, 0);
    await expect(measureTree(directory)).resolves.toEqual({ usedBytes, inodes: names.length });
  });

  test("counts a tree deeper than any path", async () => {
    let fd = syscalls.openDirectory(directory);
    for (let depth = 0; depth < 1000; depth++) {
      syscalls.mkdirat(fd, "folder", 0o700);
      const below = syscalls.openat2InRoot(fd, "folder", constants.O_RDONLY | constants.O_DIRECTORY);
      syscalls.close(fd);
      fd = below;
    }
    syscalls.close(fd);
    await expect(measureTree(directory)).resolves.toMatchObject({ inodes: 1001 });
    await removeTree(inside("folder")); // rm of the test's end stops at such a depth
  });

  test("what is not there is nothing", async () => {
    await expect(measureTree(inside("absent"))).resolves.toEqual({ usedBytes: 0, inodes: 0 });
  });

  test("a link or a file in a folder's place is refused", async () => {
    await writeFile(inside("file"), "");
    await symlink("/", inside("link"));
    await expect(measureTree(inside("file"))).rejects.toMatchObject({ code: "ENOTDIR" });
    await expect(measureTree(inside("link"))).rejects.toMatchObject({ code: "ENOTDIR" });
  });
});

describe("spreadFolders", () => {
  test("is understood by ext4, once and again, and harms nowhere else", async () => {
    const isExt4 = (await statfs(directory)).type === 0xef53;
    for (const _ of [1, 2]) await expect(spreadFolders(directory)).resolves.toEqual(isExt4 || expect.any(Boolean));
    await mkdir(inside("folder"));
    await expect(spreadFolders("/proc/self")).resolves.toBe(false);
  });

  test("wants a folder", async () => {
    await writeFile(inside("file"), "");
    await expect(spreadFolders(inside("file"))).rejects.toMatchObject({ code: "ENOTDIR" });
    await expect(spreadFolders(inside("absent"))).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("writeFifo", () => {
  test("does not wait for a reader", async () => {
    makeFifo("ctl");
    await expect(writeFifo(inside("ctl"), "x")).rejects.toMatchObject({ code: "ENXIO" });
    await writeFile(inside("file"), "");
    await expect(writeFifo(inside("file"), "x")).rejects.toMatchObject({ code: "EINVAL" });
    await expect(readFile(inside("file"), "utf8")).resolves.toBe("");
  });
});

describe("which", () => {
  test("searches the folders given, in order", async () => {
    await mkdir(inside("one"));
    await mkdir(inside("two"));
    await writeFile(inside("one/tool"), "", { mode: 0o644 });
    await writeFile(inside("two/tool"), "", { mode: 0o755 });
    await expect(which("tool", `${inside("one")}:relative:${inside("two")}`)).resolves.toBe(inside("two/tool"));
    await expect(which("tool", inside("absent"))).resolves.toBeUndefined();
    await expect(which(inside("two/tool"))).resolves.toBe(inside("two/tool"));
    await expect(which(inside("one"))).resolves.toBeUndefined();
    await expect(which("sh")).resolves.toMatch(/\/sh$/);
  });
});
