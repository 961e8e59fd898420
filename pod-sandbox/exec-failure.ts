import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { arch } from "node:os";
import { resolveInRoot } from "../native/index.ts";
import { imageNameOf } from "./container.ts";
import type { Container } from "./container.ts";

/** What the kernel itself reads of a file to tell how to run it, and more than any ELF header needs. */
const headBytes = 4096;

/**
 * How crun and runc tell, in the container's own log, that the kernel would not run the command. The path is what it
 * is known by in the container.
 */
const execFailure =
  /^(?:exec container process (?:\(missing dynamic library\?\) )?`(\/[^`]*)`|exec (\/.*?)): (no such file or directory|exec format error)$/i;

/**
 * Says what is missing where a container ended because its command could not be executed at all; any other last words
 * come back as they are.
 *
 * @param rootfs Where on the host the container's root filesystem is; nobody writes to it any more.
 */
export async function explainExecFailure(errors: string, container: Container, rootfs: string): Promise<string> {
  const [, quoted, plain, why = ""] = execFailure.exec(errors) ?? [];
  const path = quoted ?? plain;
  if (path === undefined) return errors;
  const what = `executable "${path}" in image "${imageNameOf(container)}" cannot be executed`;
  const head = await readHead(rootfs, path);
  const isFormat = /format/i.test(why);
  if (!head) return `${what}: ${why.toLowerCase()}`; // on a volume, which is gone from here
  return `${what}: ${isFormat ? describeFormat(head) : describeInterpreter(head)}`;
}

async function readHead(rootfs: string, path: string): Promise<Buffer | undefined> {
  const found = await resolveInRoot(rootfs, path);
  if (found === undefined) return undefined;
  await using file = await open(found, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  if (!(await file.stat()).isFile()) return undefined;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
  return buffer.subarray(0, bytesRead);
}

/* elf(5) */
const elfMagic = "\x7fELF";
const machineOffset = 18;
const programInterpreter = 3;
const machines: Readonly<Record<number, string>> = {
  3: "386",
  8: "mips",
  21: "ppc64le",
  22: "s390x",
  40: "arm",
  62: "amd64",
  183: "arm64",
  243: "riscv64",
  258: "loong64",
};

function isElf(head: Buffer): boolean {
  return head.length > machineOffset + 2 && head.toString("latin1", 0, elfMagic.length) === elfMagic;
}

function describeFormat(head: Buffer): string {
  const format = "exec format error";
  if (!isElf(head)) return `${format}: it is neither a program nor a script that names its interpreter`;
  const machine = machines[isBigEndian(head) ? head.readUInt16BE(machineOffset) : head.readUInt16LE(machineOffset)];
  const own = arch() === "x64" ? "amd64" : arch();
  return machine === undefined || machine === own
    ? `${format}: it is no program for this node`
    : `${format}: it is a program for ${machine}, and this node is ${own}`;
}

function isBigEndian(head: Buffer): boolean {
  return head[5] === 2;
}

/** The file itself was found, so what it needs to run was not. */
function describeInterpreter(head: Buffer): string {
  const interpreter = isElf(head) ? elfInterpreter(head) : /^#![ \t]*([^ \t\n]+)/.exec(head.toString("latin1"))?.[1];
  if (interpreter === undefined) return "what it needs to run is missing";
  return `its interpreter "${interpreter.slice(0, 256).replaceAll(/[^ -~]/g, "?")}" is missing`;
}

/** PT_INTERP of a 64-bit little-endian program, as all are that a node runs. */
function elfInterpreter(head: Buffer): string | undefined {
  if (head.length < 64 || head[4] !== 2 || isBigEndian(head)) return undefined;
  const [table, size, count] = [Number(head.readBigUInt64LE(32)), head.readUInt16LE(54), head.readUInt16LE(56)];
  for (let at = table; at < table + size * count && at + 56 <= head.length; at += size) {
    if (size < 56) return undefined;
    if (head.readUInt32LE(at) !== programInterpreter) continue;
    const start = Number(head.readBigUInt64LE(at + 8));
    const end = head.indexOf(0, start);
    return start < head.length && end > start ? head.toString("latin1", start, end) : undefined;
  }
  return undefined;
}
