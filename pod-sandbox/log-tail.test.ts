import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { lastErrors, readLastErrors } from "./log-tail.ts";

const time = "2026-11-23T10:00:00.000000000Z";
const entry = (stream: string, tag: string, text: string): string => `${time} ${stream} ${tag} ${text}\n`;

describe("lastErrors", () => {
  it("keeps the last five lines of stderr", () => {
    const log = [1, 2, 3, 4, 5, 6, 7].map((n) => entry("stderr", "F", `line ${n}`) + entry("stdout", "F", "noise"));
    expect(lastErrors(log.join(""))).toBe("line 3\nline 4\nline 5\nline 6\nline 7");
  });
  it("joins the parts of a line", () => {
    expect(lastErrors(entry("stderr", "P", "half ") + entry("stderr", "F", "a line"))).toBe("half a line");
    expect(lastErrors(entry("stderr", "P", "no end"))).toBe("no end");
  });
  it("is at most 2 KiB long and cuts no character in half", () => {
    const message = lastErrors(entry("stderr", "F", "€".repeat(1000)));
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(2048);
    expect(message).toMatch(/^€+$/u);
  });
  it.each(["", "garbage\n", "\0\n \n", `${time} stderr X what\n`, `${time} stderr F\n`])(
    "finds nothing in %j",
    (log) => {
      expect(lastErrors(log)).toBe("");
    },
  );
});

describe("readLastErrors", () => {
  async function openDirectory(): Promise<string> {
    const directory = await mkdtemp(join(tmpdir(), "berth-log-"));
    onTestFinished(() => rm(directory, { recursive: true, force: true }));
    return directory;
  }

  it("reads only the end of a long log, from the beginning of a line", async () => {
    const path = join(await openDirectory(), "0.log");
    await writeFile(path, entry("stderr", "F", `first ${"x".repeat(100_000)}`) + entry("stderr", "F", "last"));
    expect(await readLastErrors(path)).toBe("last");
  });
  it("reads all of a log that is no longer than the end", async () => {
    const path = join(await openDirectory(), "0.log");
    const overhead = entry("stderr", "F", "").length;
    await writeFile(path, entry("stderr", "F", "x".repeat(16 * 1024 - overhead)));
    expect(await readLastErrors(path)).toBe("x".repeat(2048));
  });
  it("has nothing to say without a log", async () => {
    expect(await readLastErrors("")).toBe("");
  });
  it("follows no link", async () => {
    const directory = await openDirectory();
    await writeFile(join(directory, "shadow"), entry("stderr", "F", "root:x"));
    await symlink("shadow", join(directory, "0.log"));
    await expect(readLastErrors(join(directory, "0.log"))).rejects.toThrow("ELOOP");
  });
  it("reads no directory", async () => {
    expect(await readLastErrors(await openDirectory())).toBe("");
  });
});
