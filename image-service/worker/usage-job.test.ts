import { link, lstat, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";

import { runUsage } from "./usage-job.ts";

const never = new AbortController().signal;
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "berth-usage-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

test("counts blocks and inodes, hard links once, and follows no link", async () => {
  await mkdir(join(folder, "a/b"), { recursive: true });
  await writeFile(join(folder, "a/file"), Buffer.alloc(10_000, 1));
  await link(join(folder, "a/file"), join(folder, "a/b/again"));
  await symlink("/", join(folder, "a/root"));
  const paths = ["", "a", "a/b", "a/file", "a/root"].map((path) => join(folder, path));
  const blocks = await Promise.all(paths.map(async (path) => (await lstat(path)).blocks));
  const usedBytes = blocks.reduce((sum, count) => sum + count * 512, 0);
  expect(await runUsage(folder, never)).toEqual({ usedBytes, inodes: 5 });
});

test("what is not there is nothing", async () => {
  expect(await runUsage(join(folder, "absent"), never)).toEqual({ usedBytes: 0, inodes: 0 });
});

test("can be interrupted", async () => {
  await expect(runUsage(folder, AbortSignal.abort(new Error("enough")))).rejects.toThrow("enough");
});
