import { Code } from "../../cri-api/index.ts";
import { describe, expect, test } from "vitest";
import { buildArgs, buildCwd, buildEnv } from "./process.ts";

const facts = { hostname: "pod", tty: false, home: "/root" };
const env = (entries: Record<string, string | Buffer>): { key: string; value: Buffer }[] =>
  Object.entries(entries).map(([key, value]) => ({ key, value: Buffer.from(value) }));

describe("buildArgs", () => {
  const image = { entrypoint: ["/entry"], cmd: ["serve"] };

  test.each([
    ["command drops the image's entrypoint and cmd", ["c"], [], ["c"]],
    ["command and args together", ["c"], ["a"], ["c", "a"]],
    ["args replace the image's cmd only", [], ["a"], ["/entry", "a"]],
    ["neither: the image's defaults", [], [], ["/entry", "serve"]],
  ])("%s", (_, command, args, expected) => {
    expect(buildArgs({ command, args }, image)).toEqual(expected);
  });

  test("refuses to run nothing", () => {
    const nothing = { command: [], args: [] };
    expect(() => buildArgs(nothing, { entrypoint: [], cmd: [] })).toThrow(/no command specified/);
    expect(() => buildArgs(nothing, { entrypoint: [""], cmd: [] })).toThrow(/empty/);
  });

  test("refuses a NUL, which would cut the argument short", () => {
    expect(() => buildArgs({ command: ["sh", "-c", "a\0b"], args: [] }, image)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument }),
    );
  });

  test("carries empty arguments and newlines as they are", () => {
    expect(buildArgs({ command: ["sh"], args: ["", "a\nb"] }, image)).toEqual(["sh", "", "a\nb"]);
  });
});

describe("buildEnv", () => {
  test("lets the CRI win over the image, and the image over the defaults", () => {
    const merged = buildEnv(env({ A: "cri", HOSTNAME: "own" }), ["A=image", "B=image", "PATH=/bin"], facts);
    expect(merged).toEqual(["PATH=/bin", "HOME=/root", "A=cri", "B=image", "HOSTNAME=own"]);
  });

  test("sets HOSTNAME over the image's, a PATH where none is, and TERM for a terminal", () => {
    expect(buildEnv([], ["HOSTNAME=baked-in"], { ...facts, tty: true })).toEqual([
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "TERM=xterm",
      "HOME=/root",
      "HOSTNAME=pod",
    ]);
  });

  test("falls back to / where the image calls something a home that is no path", () => {
    for (const home of [undefined, "", "relative"]) {
      expect(buildEnv([], [], { ...facts, home })).toContain("HOME=/");
    }
  });

  test("keeps UTF-8, a byte order mark, newlines and `=` in values unaltered", () => {
    const value = "\uFEFFü\n=ß😀";
    expect(buildEnv(env({ A: value }), [], facts)).toContain(`A=${value}`);
  });

  test("refuses bytes that JSON cannot carry rather than replace them", () => {
    expect(() => buildEnv(env({ RAW: Buffer.from([0x61, 0xff, 0xfe]) }), [], facts)).toThrow(
      expect.objectContaining({ code: Code.InvalidArgument, message: expect.stringContaining('"RAW" is not UTF-8') }),
    );
  });

  test.each([
    ["a NUL in a value", env({ A: "x\0y" }), []],
    ["a NUL in a name", env({ "A\0B": "x" }), []],
    ["a NUL in the image", [], ["A=x\0y"]],
    ["= in a name", env({ "A=B": "x" }), []],
    ["a line break in HOME (CVE-2022-4318)", env({ HOME: "/root\nroot::0:0::/:/bin/sh" }), []],
    ["a carriage return in the image's HOME", [], ["HOME=/root\r"]],
  ])("refuses %s", (_, entries, image) => {
    expect(() => buildEnv(entries, image, facts)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });

  test("drops entries without a name or a separator", () => {
    const merged = buildEnv(env({ "": "x" }), ["=x", "NOVALUE"], facts);
    expect(merged.map((entry) => entry.split("=")[0])).toEqual(["PATH", "HOME", "HOSTNAME"]);
  });
});

describe("buildCwd", () => {
  test.each([
    ["", "", "/"],
    ["", "/srv", "/srv"],
    ["/app", "/srv", "/app"],
    ["//app/./x/../y/", "", "/app/y"],
    ["/proc", "", "/proc"],
    ["/process", "", "/process"],
  ])("%j with the image's %j is %j", (workingDir, image, expected) => {
    expect(buildCwd(workingDir, image)).toBe(expected);
  });

  test.each([
    "app",
    "./app",
    "/proc/self/fd/7",
    "/proc/self/../self/fd/8",
    "/x/../proc/thread-self/cwd",
    "//proc//1/root",
    "/dev/fd/9",
    "/a\nb",
    "/a\0b",
  ])("refuses %j (CVE-2024-21626)", (workingDir) => {
    expect(() => buildCwd(workingDir, "")).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
    expect(() => buildCwd("", workingDir)).toThrow(expect.objectContaining({ code: Code.InvalidArgument }));
  });
});
