import { constants } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SyscallError } from "./syscall-error.ts";
import { syscalls } from "./syscalls.ts";

const { O_CREAT, O_EXCL, O_RDONLY, O_WRONLY } = constants;
let root: string;
let outside: string;
let rootFd: number;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "berth-root-"));
  outside = await mkdtemp(join(tmpdir(), "berth-outside-"));
  rootFd = syscalls.openDirectory(root);
});
afterEach(async () => {
  syscalls.close(rootFd);
  await rm(root, { recursive: true });
  await rm(outside, { recursive: true });
});

test("nothing is opened outside the root, whatever the links say", async () => {
  await mkdir(join(root, "etc"));
  await symlink(outside, join(root, "absolute"));
  await symlink("../../../../../../../../tmp", join(root, "relative"));
  await symlink("/etc", join(root, "link"));
  const fd = syscalls.openat2InRoot(rootFd, "link/file", O_WRONLY | O_CREAT | O_EXCL, 0o640);
  syscalls.close(fd);
  expect((await stat(join(root, "etc/file"))).mode & 0o7777).toBe(0o640);
  for (const path of ["absolute/x", "relative/x"])
    expect(() => syscalls.openat2InRoot(rootFd, path, O_WRONLY | O_CREAT, 0o600)).toThrow(/ENOENT/);
  expect(syscalls.openIfPresentInRoot(rootFd, "../../../etc/passwd", O_RDONLY)).toBeUndefined();
  await expect(readdir(outside)).resolves.toEqual([]);
});

test("makes, links, renames and unlinks", async () => {
  syscalls.mkdirat(rootFd, "d", 0o700);
  await writeFile(join(root, "file"), "text");
  syscalls.linkat(rootFd, "file", rootFd, "d/hard");
  syscalls.symlinkat("d/hard", rootFd, "soft");
  syscalls.linkat(rootFd, "soft", rootFd, "soft2");
  syscalls.renameat(rootFd, "soft2", rootFd, "d/soft3");
  await expect(readlink(join(root, "d/soft3"))).resolves.toBe("d/hard");
  expect(syscalls.readlinkat(rootFd, "soft").toString()).toBe("d/hard");
  await expect(readFile(join(root, "soft"), "utf8")).resolves.toBe("text");
  expect(syscalls.fstatat(rootFd, "file")).toMatchObject({ nlink: 2, size: 4, mode: 0o100644 });
  expect(syscalls.fstatat(rootFd, "absent")).toBeUndefined();
  expect(syscalls.unlinkat(rootFd, "soft")).toBe(true);
  expect(syscalls.unlinkat(rootFd, "soft")).toBe(false);
  expect(() => syscalls.unlinkat(rootFd, "d", { directory: true })).toThrow(/ENOTEMPTY/);
  expect(() => syscalls.mkdirat(rootFd, "d", 0o700)).toThrow(SyscallError);
  expect(() => syscalls.unlinkat(rootFd, "d")).toThrow(
    expect.objectContaining({ syscall: "unlinkat", code: "EISDIR" }),
  );
});

test("times are exact to the nanosecond, before 1970 too, and those of a link are its own", async () => {
  await writeFile(join(root, "file"), "");
  await symlink("file", join(root, "link"));
  const modifyNs = 1_700_000_000_123_456_789n;
  syscalls.utimensat(rootFd, "file", { accessNs: 1n, modifyNs });
  syscalls.utimensat(rootFd, "link", { accessNs: 0n, modifyNs: -1n });
  expect((await stat(join(root, "file"), { bigint: true })).mtimeNs).toBe(modifyNs);
  expect(syscalls.fstatat(rootFd, "link")).toMatchObject({ mtimeSeconds: -1, mtimeNanoseconds: 999_999_999 });
  const fd = syscalls.openat2InRoot(rootFd, "file", O_RDONLY);
  syscalls.utimensat(fd, "", { accessNs: 5n, modifyNs: 5_000_000_000n });
  expect(syscalls.fstatat(fd, "")).toMatchObject({ mtimeSeconds: 5, mtimeNanoseconds: 0 });
  syscalls.close(fd);
});

test("names with a NUL byte and absurd arguments are refused before the kernel sees them", () => {
  expect(() => syscalls.mkdirat(rootFd, "a\0b", 0o700)).toThrow(/EINVAL/);
  expect(() => syscalls.mkdirat(-5, "a", 0o700)).toThrow(/EINVAL/);
  expect(() => syscalls.mkdirat(rootFd, "a", 0o1_000_000)).toThrow(/EINVAL/);
  expect(() => syscalls.fchmod(1.5, 0)).toThrow(/EINVAL/);
  expect(() => syscalls.setxattrat(rootFd, "../x", { name: "user.a", value: Buffer.alloc(0) })).toThrow(/EINVAL/);
});

test("a worker thread has the calls too, and its end disturbs nobody", async () => {
  const source = `
    import { parentPort, workerData } from "node:worker_threads";
    import { syscalls, readFileBounded } from ${JSON.stringify(new URL("index.ts", import.meta.url).href)};
    syscalls.mkdirat(workerData.rootFd, "by-" + workerData.number, 0o700);
    await readFileBounded("/proc/self/stat", 4096);
    parentPort.postMessage("done");
  `;
  const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
  const numbers = [1, 2, 3, 4];
  await Promise.all(
    numbers.map(async (number) => {
      const worker = new Worker(url, { workerData: { rootFd, number } });
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      worker.on("error", reject);
      worker.on("exit", () => resolve());
      await promise;
    }),
  );
  await expect(readdir(root)).resolves.toEqual(["by-1", "by-2", "by-3", "by-4"]);
});
