import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants, lstatSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Worker } from "node:worker_threads";
import { gzipSync } from "node:zlib";

import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { run, syscalls, which } from "../../native/index.ts";
import { defaultLimits, type PullLimits } from "../registry/limits.ts";
import { makeTar, sha256, stateOf, tarHeader, type TestEntry } from "../testing.ts";
import { openFlags } from "./root-calls.ts";
import { reassembleLayer } from "./reassemble.ts";
import { type UnpackedLayer, unpackLayer } from "./unpack.ts";
import { verifyLayer } from "./verify.ts";

let scratch: string;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "berth-unpack-"));
});
afterEach(async () => {
  await rm(scratch, { recursive: true, force: true });
});

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

async function unpack(tar: Buffer, limits: Partial<PullLimits> = {}): Promise<UnpackedLayer & { root: string }> {
  const directory = await mkdtemp(join(scratch, "layer-"));
  const target = { directory, diffId: sha256(tar), limits: { ...defaultLimits, ...limits } };
  return { ...(await unpackLayer(cut(gzipSync(tar), 50_000), target)), root: join(directory, "diff") };
}

async function unpackEntries(entries: readonly TestEntry[], limits?: Partial<PullLimits>): Promise<string> {
  return (await unpack(makeTar(entries), limits)).root;
}

async function exec(argv: readonly [string, ...string[]], cwd = scratch): Promise<Buffer> {
  const [program, ...rest] = argv;
  const path = await which(program);
  if (path === undefined) throw new Error(`${program} is not installed`);
  const signal = AbortSignal.timeout(20_000);
  const result = await run({ argv: [path, ...rest], env: {}, cwd, maxOutputBytes: 64 << 20, signal });
  if (result.status.kind !== "exited" || result.status.code !== 0)
    throw new Error(`${argv.join(" ")}: ${result.stderr.toString("utf8")}`);
  return result.stdout;
}

function xattrsOf(root: string, path: string): string[] {
  const rootFd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  const fd = syscalls.openat2InRoot(rootFd, path, openFlags.path | openFlags.noFollow);
  try {
    return syscalls.listxattr(fd).map((name) => `${name}=${syscalls.getxattr(fd, name)?.toString("hex")}`);
  } finally {
    syscalls.close(fd);
    closeSync(rootFd);
  }
}

/** Everything that can be told of a tree, a line per entry. */
function describeTree(root: string, folder = ""): string[] {
  const lines: string[] = [];
  for (const name of ["", ...readdirSync(join(root, folder)).toSorted()]) {
    if (name === "" && folder !== "") continue;
    const path = join(folder, name) || ".";
    const status = lstatSync(join(root, path), { bigint: true });
    const link = status.isSymbolicLink() ? readlinkSync(join(root, path)) : "";
    const hash = status.isFile()
      ? createHash("sha1")
          .update(readFileSync(join(root, path)))
          .digest("hex")
      : "";
    const links = status.isDirectory() ? 0n : status.nlink;
    const xattrs = status.isSymbolicLink() ? [] : xattrsOf(root, path).toSorted();
    const fields = [status.mode.toString(8), status.uid, status.gid, status.rdev, links, status.mtimeNs, link, hash];
    lines.push(`${path} ${fields.join(" ")} ${xattrs.join(" ")}`);
    if (status.isDirectory() && name !== "") lines.push(...describeTree(root, path));
  }
  return lines;
}

/** cap_net_raw+ep, as setcap writes it. */
const capNetRaw = Buffer.from("0100000200200000000000000000000000000000", "hex");

function setXattr(path: string, name: string, value: Uint8Array): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    syscalls.setxattr(fd, name, value);
  } finally {
    closeSync(fd);
  }
}

/** A tree with one of each: odd names, modes, owners, links, devices, capabilities, times to the nanosecond. */
async function growTree(): Promise<string> {
  const root = join(scratch, "tree");
  await mkdir(join(root, "usr/bin"), { recursive: true });
  await writeFile(join(root, "usr/bin/ping"), "ping");
  setXattr(join(root, "usr/bin/ping"), "security.capability", capNetRaw);
  await writeFile(join(root, "usr/bin/su"), "su", { mode: 0o755 });
  await exec(["chown", "70000:70001", join(root, "usr/bin/su")]);
  await exec(["chmod", "6755", join(root, "usr/bin/su")]);
  await exec(["ln", join(root, "usr/bin/su"), join(root, "usr/bin/su2")]);
  await symlink("usr/bin", join(root, "bin"));
  await symlink("/nowhere/at/all", join(root, "dangling"));
  await exec(["mknod", join(root, "null"), "c", "1", "3"]);
  await exec(["mknod", join(root, "loop"), "b", "7", "0"]);
  await exec(["mkfifo", join(root, "pipe")]);
  await mkdir(join(root, "tmp"));
  await exec(["chmod", "1777", join(root, "tmp")]);
  const deep = join(root, ...Array.from({ length: 12 }, (_, index) => `${"long-component-".repeat(3)}${index}`));
  await mkdir(deep, { recursive: true });
  await writeFile(join(deep, "Főtanúsítvány with space"), Buffer.alloc(300_000, 3));
  setXattr(join(deep, "Főtanúsítvány with space"), "user.note", Buffer.from([0, 255, 10]));
  for (let index = 0; index < 300; index += 1) {
    await writeFile(join(root, "tmp", `f${index}`), Buffer.alloc(index * 37, index));
    await utimes(join(root, "tmp", `f${index}`), 1, 1_000_000 + index * 1.0001);
  }
  return root;
}

describe("against GNU tar", () => {
  test.each([["pax"], ["gnu"]])("a %s archive unpacks to the same tree", async (format) => {
    const root = await growTree();
    const archive = join(scratch, "tree.tar");
    await exec(
      [
        "tar",
        `--format=${format}`,
        ...(format === "pax" ? ["--xattrs", "--xattrs-include=*"] : []),
        "-cf",
        archive,
        ".",
      ],
      root,
    );
    const reference = join(scratch, "reference");
    await mkdir(reference);
    await exec(["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive, "-C", reference]);
    const unpacked = await unpack(readFileSync(archive));
    expect(describeTree(unpacked.root)).toEqual(describeTree(reference));
  });

  test("disk use is told as du tells it", async () => {
    const root = await growTree();
    const unpacked = await unpack(await exec(["tar", "-cf", "-", "."], root));
    const [blocks] = (await exec(["du", "-s", "--block-size=1", join(unpacked.root, "..")]))
      .toString("utf8")
      .split("\t");
    const [inodes] = (await exec(["du", "-s", "--inodes", join(unpacked.root, "..")])).toString("utf8").split("\t");
    expect(Math.abs(unpacked.usedBytes - Number(blocks))).toBeLessThan(Number(blocks) / 100);
    expect(unpacked.inodes).toBe(Number(inodes));
  });
});

describe("whiteouts", () => {
  const isWhiteout = (path: string): boolean => {
    const status = lstatSync(path);
    return status.isCharacterDevice() && status.rdev === 0;
  };

  test("become overlayfs's own", async () => {
    const root = await unpackEntries([
      { name: "a/", type: "5" },
      { name: "a/.wh.gone" },
      { name: "b/.wh..wh..opq" },
      { name: "b/kept", content: "x" },
      { name: ".wh..wh.plnk" },
      { name: "deep/er/.wh.x", content: "ignored" },
    ]);
    expect(isWhiteout(join(root, "a/gone"))).toBe(true);
    expect(isWhiteout(join(root, "deep/er/x"))).toBe(true);
    expect(xattrsOf(root, "b")).toContain("trusted.overlay.opaque=79");
    expect(readFileSync(join(root, "b/kept"), "utf8")).toBe("x");
    expect(readdirSync(root).toSorted()).toEqual(["a", "b", "deep"]);
  });

  test("speak of lower layers only", async () => {
    const root = await unpackEntries([
      { name: "file", content: "kept" },
      { name: ".wh.file" },
      { name: "dir/x", content: "kept" },
      { name: ".wh.dir" },
      { name: ".wh.later" },
      { name: "later/", type: "5" },
      { name: "later/y", content: "kept" },
      { name: ".wh.file2" },
      { name: "file2", content: "kept" },
    ]);
    expect(readFileSync(join(root, "file"), "utf8")).toBe("kept");
    expect(readFileSync(join(root, "dir/x"), "utf8")).toBe("kept");
    expect(xattrsOf(root, "dir")).toContain("trusted.overlay.opaque=79");
    expect(readFileSync(join(root, "later/y"), "utf8")).toBe("kept");
    expect(xattrsOf(root, "later")).toContain("trusted.overlay.opaque=79");
    expect(readFileSync(join(root, "file2"), "utf8")).toBe("kept");
  });

  test.each([[".wh."], [".wh..."], [".wh.."]])("%j names nothing and is refused or stays in the root", async (name) => {
    await expect(unpackEntries([{ name }])).rejects.toThrow(expect.objectContaining({ name: "LayerError" }));
  });
});

describe("a later entry", () => {
  test("replaces an earlier one of the same name, whatever both are", async () => {
    const root = await unpackEntries([
      { name: "a", content: "old" },
      { name: "a", content: "new" },
      { name: "d/x/y", content: "gone" },
      { name: "d", type: "2", link: "a" },
      { name: "l", type: "2", link: "a" },
      { name: "l/", type: "5" },
      { name: "l/in", content: "in l" },
      { name: "f", content: "" },
      { name: "f", type: "1", link: "a" },
      { name: "same", type: "5", mode: 0o700 },
      { name: "same", type: "5", mode: 0o711 },
    ]);
    expect(readFileSync(join(root, "a"), "utf8")).toBe("new");
    expect(readlinkSync(join(root, "d"))).toBe("a");
    expect(readFileSync(join(root, "l/in"), "utf8")).toBe("in l");
    expect(lstatSync(join(root, "f")).ino).toBe(lstatSync(join(root, "a")).ino);
    expect(lstatSync(join(root, "same")).mode & 0o7777).toBe(0o711);
  });

  test("may come through a link that stays inside the root", async () => {
    const root = await unpackEntries([
      { name: "usr/bin/", type: "5" },
      { name: "bin", type: "2", link: "/usr/bin" },
      { name: "bin/sh", content: "sh" },
      { name: "copy", type: "1", link: "bin/sh" },
    ]);
    expect(readFileSync(join(root, "usr/bin/sh"), "utf8")).toBe("sh");
    expect(readFileSync(join(root, "copy"), "utf8")).toBe("sh");
  });

  test("the root itself takes mode and owner from its entry, 0755 otherwise", async () => {
    expect(lstatSync(await unpackEntries([{ name: "a" }])).mode & 0o7777).toBe(0o755);
    const status = lstatSync(await unpackEntries([{ name: "./", type: "5", mode: 0o711, uid: 7 }, { name: "a" }]));
    expect([status.mode & 0o7777, status.uid]).toEqual([0o711, 7]);
  });
});

describe("a hostile layer", () => {
  /** Each tries to write `owned` or to read `secret` beside the layer's root. */
  const attacks: readonly (readonly [string, readonly TestEntry[]])[] = [
    ["..", [{ name: "../owned", content: "x" }]],
    [".. in the middle", [{ name: "a/../../owned", content: "x" }]],
    ["an absolute name", [{ name: "/../owned", content: "x" }]],
    [
      "a relative link as parent",
      [
        { name: "l", type: "2", link: "../.." },
        { name: "l/owned", content: "x" },
      ],
    ],
    [
      "an absolute link as parent",
      [
        { name: "l", type: "2", link: "OUTSIDE" },
        { name: "l/owned", content: "x" },
      ],
    ],
    [
      "a file through a dangling link",
      [
        { name: "l", type: "2", link: "OUTSIDE/owned" },
        { name: "l", content: "x" },
      ],
    ],
    ["a hard link outside", [{ name: "h", type: "1", link: "../../secret" }]],
    [
      "a hard link through a link",
      [
        { name: "l", type: "2", link: "OUTSIDE" },
        { name: "h", type: "1", link: "l/secret" },
      ],
    ],
    [
      "writing through a hard link to a link",
      [
        { name: "l", type: "2", link: "OUTSIDE/secret" },
        { name: "h", type: "1", link: "l" },
        { name: "h", content: "overwritten" },
      ],
    ],
    [
      "a parent swapped for a link",
      [
        { name: "d/x", content: "1" },
        { name: "d", type: "2", link: "OUTSIDE" },
        { name: "d/owned", content: "x" },
      ],
    ],
    ["mode and owner through a link", [{ name: "l", type: "2", link: "OUTSIDE/secret", mode: 0o777, uid: 4242 }]],
    ["a whiteout through a link", [{ name: "l", type: "2", link: "OUTSIDE" }, { name: "l/.wh.secret" }]],
    ["a whiteout of the parent", [{ name: "a/.wh..." }]],
    [
      "a link loop as parent",
      [
        { name: "l", type: "2", link: "l" },
        { name: "l/owned", content: "x" },
      ],
    ],
    [
      "/proc's magic links",
      [
        { name: "p", type: "2", link: "/proc/self/root" },
        { name: "p/owned", content: "x" },
      ],
    ],
  ];

  test.each(attacks)("%s changes nothing outside its root", async (_, entries) => {
    const outside = join(scratch, "outside");
    await mkdir(outside);
    const secrets = [scratch, outside].map((folder) => join(folder, "secret"));
    for (const secret of secrets) await writeFile(secret, "secret");
    const before = secrets.map(stateOf);
    const tar = makeTar(entries.map((entry) => ({ ...entry, link: (entry.link ?? "").replace("OUTSIDE", outside) })));
    await unpack(tar).catch((thrown: unknown) => {
      expect((thrown as Error).name).toBe("LayerError");
    });
    for (const folder of [scratch, outside]) expect(readdirSync(folder)).not.toContain("owned");
    expect(secrets.map(stateOf)).toEqual(before);
  });

  test.each([
    [
      "more entries than allowed",
      Array.from({ length: 101 }, (_, index) => ({ name: `f${index}` })),
      { layerEntries: 100 },
    ],
    ["a path deeper than allowed", [{ name: "d/".repeat(50) }], { pathDepth: 20 }],
    ["more bytes than allowed", [{ name: "bomb", content: Buffer.alloc(3_000_000) }], { layerBytes: 1_000_000 }],
    [
      "many files that are too much together",
      Array.from({ length: 30 }, (_, index) => ({ name: `f${index}`, content: Buffer.alloc(50_000) })),
      { layerBytes: 1_000_000 },
    ],
    ["a hard link to what the layer lacks", [{ name: "h", type: "1", link: "absent" }], {}],
    ["a hard link to the root", [{ name: "h", type: "1", link: "/" }], {}],
    [
      "a file in a file",
      [
        { name: "a", content: "x" },
        { name: "a/b", content: "y" },
      ],
      {},
    ],
    ["a file in place of the root", [{ name: "./", content: "x" }], {}],
    ["a symbolic link to nothing", [{ name: "l", type: "2", link: "" }], {}],
  ] satisfies [string, TestEntry[], Partial<PullLimits>][])(
    "%s is refused with a reason",
    async (_, entries, limits) => {
      await expect(unpackEntries(entries, limits)).rejects.toThrow(expect.objectContaining({ name: "LayerError" }));
    },
  );

  test("brings no overlay attributes along", async () => {
    const root = await unpackEntries([
      {
        name: "d/",
        type: "5",
        pax: { "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y" },
      },
      {
        name: "f",
        content: "x",
        pax: { "SCHILY.xattr.trusted.overlay.metacopy": "", "SCHILY.xattr.user.overlay.opaque": "y" },
      },
    ]);
    expect(xattrsOf(root, "d")).toEqual([]);
    expect(xattrsOf(root, "f")).toEqual([]);
  });

  test("with other content than its digest says is refused", async () => {
    const directory = await mkdtemp(join(scratch, "layer-"));
    const target = { directory, diffId: sha256("something else"), limits: defaultLimits };
    await expect(unpackLayer(cut(makeTar([{ name: "a" }]), 512), target)).rejects.toThrow("the layer unpacks to");
  });

  test("of any size takes the same memory", async () => {
    const megabytes = 300;
    const chunk = Buffer.alloc(1 << 20, 7);
    const header = tarHeader({ name: "large" }, megabytes << 20);
    const hash = createHash("sha256").update(header);
    for (let index = 0; index < megabytes; index += 1) hash.update(chunk);
    const diffId = `sha256:${hash.update(Buffer.alloc(1024)).digest("hex")}` as const;
    async function* large(): AsyncGenerator<Buffer, void> {
      yield header;
      for (let index = 0; index < megabytes; index += 1) yield chunk;
      yield Buffer.alloc(1024);
    }
    const directory = await mkdtemp(join(scratch, "layer-"));
    const before = process.memoryUsage().rss;
    let highest = before;
    const unpacked = await unpackLayer(large(), {
      directory,
      diffId,
      limits: defaultLimits,
      onProgress: () => {
        highest = Math.max(highest, process.memoryUsage().rss);
      },
    });
    expect(unpacked.usedBytes).toBeGreaterThanOrEqual(megabytes << 20);
    expect(highest - before).toBeLessThan(64 << 20);
  });

  test("leaves no descriptor open", async () => {
    const count = (): number => readdirSync("/proc/self/fd").length;
    await unpackEntries([{ name: "warm/up", content: "x" }]);
    const before = count();
    for (const [, entries] of attacks) await unpackEntries(entries).catch(() => undefined);
    await unpackEntries(Array.from({ length: 400 }, (_, index) => ({ name: `d${index}/f`, content: "x" })));
    expect(count()).toBe(before);
  });
});

describe("an unpacked layer", () => {
  const odd: TestEntry[] = [
    { name: "d/", type: "5", mode: 0o1777 },
    { name: "d/file", content: "x".repeat(1300), mode: 0o4755, uid: 5, gid: 6 },
    { name: "d/again", type: "1", link: "d/file" },
    { name: "d/", type: "5", mode: 0o700 },
    { name: "link", type: "2", link: "../../etc/passwd" },
    { name: `${"long/".repeat(40)}name`, content: "y", pax: { path: `${"long/".repeat(40)}näme`, mtime: "5.25" } },
    { name: "fifo", type: "6" },
    { name: "null", type: "3", major: 1, minor: 3 },
    { name: ".wh.gone", content: "" },
    { name: "back", content: "z" },
    { name: "implicit/folder/empty", content: "" },
  ];
  const trailing = Buffer.concat([makeTar(odd), Buffer.alloc(8192), Buffer.from("after the end")]);

  async function bytesOf(directory: string): Promise<Buffer> {
    const chunks: Buffer[] = [];
    for await (const chunk of reassembleLayer({ directory, limits: defaultLimits })) chunks.push(chunk);
    return Buffer.concat(chunks);
  }
  async function unpackIn(tar: Buffer, size = 50_000): Promise<string> {
    const directory = await mkdtemp(join(scratch, "layer-"));
    await unpackLayer(cut(tar, size), { directory, diffId: sha256(tar), limits: defaultLimits });
    return directory;
  }
  const verify = async (directory: string, tar: Buffer): Promise<string | undefined> =>
    verifyLayer({ directory, diffId: sha256(tar), limits: defaultLimits });

  test.each([1, 511, 512, 513, 50_000])(
    "makes its archive again to the byte, read %i bytes at a time",
    async (size) => {
      const directory = await unpackIn(trailing, size);
      expect((await bytesOf(directory)).equals(trailing)).toBe(true);
      expect(await verify(directory, trailing)).toBeUndefined();
    },
  );

  test("is read back without a descriptor that one hand opened and another closed", async () => {
    const directory = await unpackIn(trailing);
    // A thread that ends closes what its Node takes for open: a number that is another's by then.
    const script = `import(workerData.module).then(async ({ reassembleLayer }) => {
      for await (const _ of reassembleLayer(workerData)) ;
    });`;
    const workerData = {
      module: new URL("./reassemble.ts", import.meta.url).href,
      directory,
      limits: defaultLimits,
    };
    const code = `const { workerData } = require("node:worker_threads"); ${script}`;
    const worker = new Worker(code, { eval: true, stderr: true, execArgv: [], workerData });
    const [said, [exitCode]] = await Promise.all([text(worker.stderr), once(worker, "exit")]);
    expect(said).not.toContain("opened in unmanaged mode twice");
    expect(exitCode, said).toBe(0);
  });

  test("makes GNU tar's own archives again, in every format it writes", async () => {
    const source = join(scratch, "source");
    await mkdir(join(source, "a".repeat(200)), { recursive: true });
    for (let index = 0; index < 50; index += 1)
      await writeFile(join(source, "a".repeat(200), `${index}`), Buffer.alloc(index * 997, index));
    for (const format of ["gnu", "pax", "oldgnu"]) {
      const tar = await exec(["tar", `--format=${format}`, "-cf", "-", "-C", source, "."]);
      expect((await bytesOf(await unpackIn(tar))).equals(tar)).toBe(true);
    }
  });

  test("has names of whatever bytes, and loses none of them", async () => {
    const [latin1, other] = ["caf\uDCE9", "caf\uDCEA"];
    const tar = makeTar([
      { name: `${latin1}/`, type: "5" },
      { name: `${latin1}/${latin1}`, content: "1" },
      { name: `${latin1}/${other}`, content: "other" },
      { name: latin1, content: "in the folder's place" },
      { name: "\uDCFF".repeat(255), pax: { path: Buffer.alloc(255, 0xff) } },
      { name: "link", type: "2", link: other },
      { name: "hard", type: "1", link: latin1 },
      { name: `.wh.${other}` },
    ]);
    const directory = await unpackIn(tar);
    const root = join(directory, "diff");
    const names = readdirSync(root, { encoding: "latin1" }).toSorted();
    expect(names).toEqual(["caf\xe9", "caf\xea", "hard", "link", "\xff".repeat(255)]);
    expect(readlinkSync(join(root, "link"), { encoding: "latin1" })).toBe("caf\xea");
    expect(readFileSync(join(root, "hard"), "utf8")).toBe("in the folder's place");
    expect((await bytesOf(directory)).equals(tar)).toBe(true);
    expect(await verify(directory, tar)).toBeUndefined();
  });

  test("whose whiteout gave way to a file of the same layer is made again all the same", async () => {
    const tar = makeTar([{ name: ".wh.f" }, { name: "f", content: "new" }, { name: "d/.wh..wh..opq" }]);
    const directory = await unpackIn(tar);
    expect((await bytesOf(directory)).equals(tar)).toBe(true);
  });

  const file = (name: string, content = ""): TestEntry => ({ name, content });
  const link = (name: string, target: string): TestEntry => ({ name, type: "1", link: target });
  const symlink = (name: string, target: string): TestEntry => ({ name, type: "2", link: target });
  test.each<[string, TestEntry[]]>([
    [
      "a file that comes thrice",
      [file("f", "1"), file("f", "22"), file("f"), file("g", "x".repeat(300_000)), file("g")],
    ],
    ["a file in the place of a folder", [file("f/a", "1"), file("f/b/a", "2"), file("f/a", "3"), file("f", "4")]],
    ["a folder in the place of a file", [file("f", "1"), file("f", "2"), { name: "f/", type: "5" }, file("f/a", "3")]],
    ["a file that other names keep", [file("f", "1"), link("g", "f"), file("f", "2"), file("g", "3"), link("f", "g")]],
    ["links and devices that give way", [symlink("f", "x"), file("f", "1"), { name: "f", type: "6" }, file("f", "2")]],
  ])("in which %s take each other's place is made again all the same", async (_, entries) => {
    const tar = makeTar(entries);
    const directory = await unpackIn(tar);
    expect((await bytesOf(directory)).equals(tar)).toBe(true);
    expect(await verify(directory, tar)).toBeUndefined();
  });

  test("counts what it keeps for its archive", async () => {
    const tar = makeTar([file("f", "x".repeat(100_000)), file("f", "y".repeat(50_000)), file("e"), file("e")]);
    const directory = await mkdtemp(join(scratch, "layer-"));
    const usage = await unpackLayer(cut(tar, 512), { directory, diffId: sha256(tar), limits: defaultLimits });
    const [blocks] = (await exec(["du", "--summarize", "--block-size=512", directory])).toString().split("\t");
    const [inodes] = (await exec(["du", "--summarize", "--inodes", directory])).toString().split("\t");
    expect(usage).toMatchObject({ usedBytes: Number(blocks) * 512, inodes: Number(inodes) });
  });

  test.each<[string, TestEntry[]]>([
    ["a file that comes under two names", [file("a/f", "1"), symlink("b", "a"), file("b/f", "22"), file("g", "3")]],
    ["a whiteout with content", [file(".wh.f", "1")]],
  ])("with %s cannot be made again, and has no skeleton", async (_, entries) => {
    const directory = await unpackIn(makeTar(entries));
    await expect(bytesOf(directory)).rejects.toThrow("ENOENT");
    expect(readdirSync(directory)).toEqual(["diff"]);
  });

  test.each<[string, string, (diff: string) => Promise<unknown>]>([
    ["another byte", "content has the digest", (diff) => writeFile(join(diff, "d/file"), "x".repeat(1299).concat("y"))],
    ["a shorter file", 'file "d/file" has changed its size', (diff) => writeFile(join(diff, "d/file"), "x")],
    ["a missing file", 'file "back" is missing', (diff) => rm(join(diff, "back"))],
    ["a missing empty file", '"implicit/folder/empty" is missing', (diff) => rm(join(diff, "implicit/folder/empty"))],
    ["another mode", '"d/file" has changed its kind, mode', (diff) => exec(["chmod", "700", join(diff, "d/file")])],
    ["another owner", '"fifo" has changed its kind, mode', (diff) => exec(["chown", "7:8", join(diff, "fifo")])],
    ["another link target", '"link" points elsewhere', (diff) => exec(["ln", "-sfn", "/x", join(diff, "link")])],
    ["a link for a file", 'file "back" is missing', (diff) => exec(["ln", "-sf", "/etc/passwd", join(diff, "back")])],
  ])("with %s is damaged", async (_, text, damage) => {
    const directory = await unpackIn(trailing);
    await damage(join(directory, "diff"));
    expect(await verify(directory, trailing)).toContain(text);
  });
});
