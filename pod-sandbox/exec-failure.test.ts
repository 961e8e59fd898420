import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { explainExecFailure } from "./exec-failure.ts";
import { testContainer, testSandbox } from "./testing.ts";

const container = testContainer("web", testSandbox("pod"));
let rootfs: string;

beforeEach(async () => {
  rootfs = await mkdtemp(join(tmpdir(), "berth-rootfs-"));
  await mkdir(join(rootfs, "bin"));
});
afterEach(() => rm(rootfs, { recursive: true }));

/** A 64-bit program for a machine, with an interpreter or without. */
function program(machine: number, interpreter?: string): Buffer {
  const elf = Buffer.alloc(256);
  elf.write("\x7fELF\x02\x01\x01", 0, "latin1");
  elf.writeUInt16LE(machine, 18);
  elf.writeBigUInt64LE(64n, 32);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(1, 56);
  if (interpreter === undefined) return elf;
  elf.writeUInt32LE(3, 64);
  elf.writeBigUInt64LE(128n, 72);
  elf.write(`${interpreter}\0`, 128, "latin1");
  return elf;
}

const crun = (why: string): string => `exec container process (missing dynamic library?) \`/bin/app\`: ${why}`;
const runc = (why: string): string => `exec /bin/app: ${why.toLowerCase()}`;
const foreign = process.arch === "arm64" ? ([62, "amd64"] as const) : ([183, "arm64"] as const);

describe.each([
  ["crun", crun],
  ["runc", runc],
])("in the words of %s", (_, said) => {
  test.each([
    [
      "a script's interpreter",
      Buffer.from("#! /usr/bin/python3 -u\nprint()\n"),
      /its interpreter "\/usr\/bin\/python3" is missing$/,
    ],
    [
      "a program's loader",
      program(62, "/lib/ld-musl-x86_64.so.1"),
      /its interpreter "\/lib\/ld-musl-x86_64.so.1" is missing$/,
    ],
    ["something of an unknown file", Buffer.from("x"), /what it needs to run is missing$/],
    [
      "something of a program that lies about itself",
      program(62).fill(0xff, 32, 64),
      /what it needs to run is missing$/,
    ],
    ["an interpreter with a terminal's orders in its name", Buffer.from("#!/\x1b[2Jx\n"), /"\/\?\[2Jx" is missing$/],
  ])("%s is missing", async (__, bytes, text) => {
    await writeFile(join(rootfs, "bin/app"), bytes);
    const told = await explainExecFailure(said("No such file or directory"), container, rootfs);
    expect(told).toMatch(/^executable "\/bin\/app" in image "busybox" cannot be executed: /);
    expect(told).toMatch(text);
  });

  test("a program for another machine, and what is none", async () => {
    const tell = () => explainExecFailure(said("Exec format error"), container, rootfs);
    await writeFile(join(rootfs, "bin/app"), program(foreign[0]));
    expect(await tell()).toMatch(new RegExp(`exec format error: it is a program for ${foreign[1]}, and this node is`));
    await writeFile(join(rootfs, "bin/app"), "echo no interpreter line\n");
    expect(await tell()).toMatch(/neither a program nor a script/);
  });

  test("a file that is not in the image, or leads out of it, is not looked at", async () => {
    const tell = () => explainExecFailure(said("No such file or directory"), container, rootfs);
    expect(await tell()).toMatch(/cannot be executed: no such file or directory$/);
    await symlink("../../../../../../../etc/hostname", join(rootfs, "bin/app"));
    expect(await tell()).toMatch(/cannot be executed: no such file or directory$/);
  });
});

test.each(["cannot open /etc/app.conf", "", "exec /bin/app: no such file or directory\nand more", "exec: nothing"])(
  "other last words stay as they are: %j",
  async (errors) => {
    expect(await explainExecFailure(errors, container, rootfs)).toBe(errors);
  },
);
