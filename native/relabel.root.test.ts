import { chmod, mkdir, mkdtemp, open, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { relabel } from "./relabel.ts";
import { syscalls } from "./syscalls.ts";

const label = "system_u:object_r:container_file_t:s0:c1,c2";
const signal = new AbortController().signal;
let directory: string;
const inside = (name: string): string => join(directory, name);

beforeEach(async () => {
  directory = await realpath(await mkdtemp(join(tmpdir(), "berth-relabel-")));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

async function labelOf(path: string): Promise<string | undefined> {
  await using file = await open(path);
  return syscalls.getxattr(file.fd, "security.selinux")?.toString().replace(/\0$/, "");
}

test("labels a folder and all below it, whatever the modes say", async () => {
  await mkdir(inside("tree/a/b"), { recursive: true });
  for (let index = 0; index < 300; index++) await writeFile(inside(`tree/a/file-with-a-longer-name-${index}`), "");
  await writeFile(inside("tree/a/b/leaf"), "");
  await chmod(inside("tree/a/b"), 0o000);
  await relabel([inside("tree")], label, { signal });
  for (const name of ["tree", "tree/a", "tree/a/b", "tree/a/b/leaf", "tree/a/file-with-a-longer-name-299"]) {
    await expect(labelOf(inside(name))).resolves.toBe(label);
  }
});

test("a second time changes a label and keeps an equal one", async () => {
  await writeFile(inside("file"), "");
  await relabel([inside("file")], label, { signal });
  await relabel([inside("file")], label, { signal });
  await expect(labelOf(inside("file"))).resolves.toBe(label);
  await relabel([inside("file")], "system_u:object_r:container_file_t:s0", { signal });
  await expect(labelOf(inside("file"))).resolves.toBe("system_u:object_r:container_file_t:s0");
});

test("follows no link, neither on the way nor below", async () => {
  await mkdir(inside("tree"));
  await writeFile(inside("outside"), "");
  await symlink(inside("outside"), inside("tree/link"));
  await symlink(inside("tree"), inside("way"));
  await relabel([inside("tree")], label, { signal });
  await expect(labelOf(inside("outside"))).resolves.toBeUndefined();
  await expect(relabel([inside("way")], label, { signal })).rejects.toMatchObject({ code: "ELOOP" });
});

test("says which path it could not label", async () => {
  await writeFile(inside("file"), "");
  const gone = inside("gone");
  await expect(relabel([inside("file"), gone], label, { signal })).rejects.toMatchObject({
    code: "ENOENT",
    path: gone,
  });
  await expect(labelOf(inside("file"))).resolves.toBe(label);
});

test("passes over a file system that keeps no labels", async () => {
  await relabel(["/proc/uptime"], label, { signal });
});

test("gives up on folders more than a thousand deep, with an error", async () => {
  let deep = directory;
  for (let level = 0; level < 50; level++) {
    deep = join(deep, ...Array.from({ length: 21 }, () => "d"));
    await mkdir(deep, { recursive: true });
  }
  await expect(relabel([directory], label, { signal })).rejects.toMatchObject({ code: "ENAMETOOLONG" });
});
